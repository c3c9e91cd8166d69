-- The server process that holds the advisory lock ($1, $2) of this database.
SELECT pid
FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND granted AND classid::bigint = $1 AND objid::bigint = $2
    AND database = (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    )
