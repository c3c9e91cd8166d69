-- A row is one session that was told to end. Autovacuum gives way to RENAME by itself.
-- https://www.postgresql.org/docs/current/monitoring-stats.html (pg_stat_activity)
SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = ANY ($1)
  AND a.backend_type IN ('client backend', 'walsender')
