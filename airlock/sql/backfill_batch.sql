-- The row of one backfill after a batch; it commits with what the batch changed.
UPDATE airlock.backfill
SET last_key = $4, changed_rows = $5, walked_rows = $6, batches = $7,
    batch_at = pg_catalog.clock_timestamp()
WHERE deploy = $1 AND version = $2 AND direction = $3
