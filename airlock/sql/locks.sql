-- One row per relation and mode that session $1 (or this one) holds in this database.
SELECT DISTINCT relation::bigint AS relation, mode
FROM pg_catalog.pg_locks
WHERE locktype = 'relation' AND granted AND mode <> 'SIReadLock'
AND pid = COALESCE($1::integer, pg_catalog.pg_backend_pid())
AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY relation, mode
