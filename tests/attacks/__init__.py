"""What somebody who should not get in tries, against real servers, sessions and processes.

Each test is one attempt. Its name claims what happens instead, and its mark says who tries what::

    @pytest.mark.attack(by="another user of this machine", tries="a command in a run's variables")
    async def test_no_job_variable_chooses_what_runs(…): …

`make attacks` runs them all and writes docs/attacks.md. The whole suite takes those that are marked
``sample=True``.
"""
