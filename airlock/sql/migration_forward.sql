-- The row of one migration after some or all of its segments; it commits with them. A second run
-- after a rollback of the same deploy (the rehearsal's) starts the row afresh.
INSERT INTO airlock.migration AS known
    (deploy, version, name, checksum, forward_sql, reverse_sql, state, position, segments_done,
     applied_at, applied_xid, oldest_xid)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
    CASE WHEN $7 = 'applied' THEN pg_catalog.clock_timestamp() END,
    pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text::bigint)
ON CONFLICT (deploy, version) DO UPDATE SET
    state = excluded.state,
    segments_done = excluded.segments_done,
    reverse_segments_done = 0,
    applied_at = excluded.applied_at,
    rolled_back_at = NULL,
    applied_xid = CASE WHEN known.state = 'rolled_back'
        THEN excluded.applied_xid ELSE known.applied_xid END,
    oldest_xid = CASE WHEN known.state = 'rolled_back'
        THEN excluded.oldest_xid ELSE known.oldest_xid END
