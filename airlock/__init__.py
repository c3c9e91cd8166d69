"""What the pipeline knows: PostgreSQL, HTTP and processes. Imports no Prefect."""
