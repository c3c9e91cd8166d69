"""The table of effects, and what is predicted from a database, on the server of the tests."""

from __future__ import annotations

from tests.effects.forms import disagreements, forms, measure, prepare, read_table, show
from tests.people import connect

# As many as a test run can bear; make effects runs them all.
EVERY = 12


async def test_the_server_does_what_the_table_says_and_what_was_predicted(pg_of):
    pg = await pg_of(None)
    async with connect(pg.url()) as conn:
        major = conn.get_server_version().major
    await prepare(pg)
    table, wrong = read_table(), []
    for form in list(forms(major))[::EVERY]:
        measured, predicted = await measure(pg, form)
        known = table[form.text].get(major)
        if known is not None and known != measured:
            wrong.append(f"{form.text}: table {show(known)}, measured {show(measured)}")
        wrong += [f"{form.text}: {each}" for each in disagreements(predicted, measured)]
    assert not wrong, "\n".join([*wrong, "Mend the prediction, or run: make effects"])
