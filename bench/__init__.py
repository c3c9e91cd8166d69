"""Side-by-side measurements: Airlock and its peers, in one run, on one machine."""
