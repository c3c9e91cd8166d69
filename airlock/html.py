"""A report as one file that a browser shows without anything beside it."""
