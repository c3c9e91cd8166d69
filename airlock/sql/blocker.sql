-- The server process $1, as long as it is in the transaction that blockers.sql called $2 and, unless
-- $3 is NULL, has done nothing since then.
SELECT a.pid
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid = $1
  AND $2 = pg_catalog.format('%s %s %s', a.pid, a.backend_start, (
      SELECT l.virtualxid FROM pg_catalog.pg_locks AS l
      WHERE l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'
  ))
  AND ($3::pg_catalog.timestamptz IS NULL OR (a.state = 'idle in transaction' AND a.state_change = $3))
