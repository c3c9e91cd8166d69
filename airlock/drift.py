"""Whether a target still has the schema that its ledger says."""
