-- A row is another session in this database that applies or undoes a deploy with a fence up to $1.
-- https://www.postgresql.org/docs/current/monitoring-stats.html (pg_stat_activity)
SELECT a.pid, a.application_name AS name
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = pg_catalog.current_database()
  AND a.pid <> pg_catalog.pg_backend_pid()
  AND pg_catalog.substring(a.application_name, '^airlock (?:apply|rollback) ([0-9]{1,18})$')::bigint
      <= $1
ORDER BY a.pid
