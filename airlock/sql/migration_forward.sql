-- The row of one migration after some or all of its segments. It commits with them.
-- A second run after a rollback of the same deploy (the rehearsal's) starts the row afresh.
INSERT INTO airlock.migration AS known
    (deploy, version, name, checksum, forward_sql, reverse_sql, state, position, segments_done,
     applied_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
    CASE WHEN $7 = 'applied' THEN clock_timestamp() END)
ON CONFLICT (deploy, version) DO UPDATE SET
    state = excluded.state,
    segments_done = excluded.segments_done,
    reverse_segments_done = 0,
    applied_at = excluded.applied_at,
    rolled_back_at = NULL
