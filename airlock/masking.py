"""Rules that make production data safe to look at, and the SQL that follows from them."""
