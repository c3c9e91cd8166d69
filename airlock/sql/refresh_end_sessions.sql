-- A row is one session that was told to end. Only what works for a user is one: autovacuum gives way
-- to RENAME by itself. Not by backend_type, which is hidden where the session is another role's.
-- https://www.postgresql.org/docs/current/monitoring-stats.html (pg_stat_activity)
SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = ANY ($1)
  AND a.usesysid IS NOT NULL
