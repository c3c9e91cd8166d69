"""The M&A Tracker: a service with its database, as Airlock finds them."""
