"""``make demo``: a good deploy, a bad release and a bad migration, on real PostgreSQL and Prefect.

``stage`` sets up and clears up, ``acts`` is the plot, ``show`` is what the person sees.
"""
