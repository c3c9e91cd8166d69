"""Whether a person must read the rehearsal before production is touched, and what they decided."""
