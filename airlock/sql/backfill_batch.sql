-- The row of one backfill after a batch, and the batch's transaction on the way forward; they commit
-- with what the batch changed.
WITH progress AS (
    UPDATE airlock.backfill
    SET last_key = $4, changed_rows = $5, walked_rows = $6, batches = $7,
        batch_at = pg_catalog.clock_timestamp()
    WHERE deploy = $1 AND version = $2 AND direction = $3
)
INSERT INTO airlock.backfill_batch (deploy, version, xid)
SELECT $1, $2, pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint WHERE $3 = 'forward'
