-- The row of one migration after some or all segments of its reverse SQL. It commits with them.
UPDATE airlock.migration SET
    reverse_segments_done = $3,
    state = CASE WHEN $4 THEN 'rolled_back' ELSE state END,
    rolled_back_at = CASE WHEN $4 THEN pg_catalog.clock_timestamp() END
WHERE deploy = $1 AND version = $2
