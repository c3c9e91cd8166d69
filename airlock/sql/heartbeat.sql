-- One row updated, or none: the row is locked while our own migration's transaction runs, and
-- its session says as much as a heartbeat would (deploys.sql).
UPDATE airlock.deploy
SET heartbeat_at = pg_catalog.clock_timestamp()
WHERE id = (
    SELECT id FROM airlock.deploy WHERE id = $1 AND fence = $2 FOR NO KEY UPDATE SKIP LOCKED
)
