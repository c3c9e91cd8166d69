"""Verbs: one Prefect task each, with its retries, timeout and run name."""
