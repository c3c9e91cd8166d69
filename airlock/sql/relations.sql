-- One row per table, index, view (materialised or not) and foreign table of the users: its file, and how often this
-- transaction has read the whole of it so far (an index is read in part, as a rule). https://www.postgresql.org/docs/current/monitoring-stats.html
SELECT c.oid::bigint AS oid,
    pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
    COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint AS filenode,
    CASE WHEN c.relkind IN ('i', 'I') THEN 0
        ELSE COALESCE(pg_catalog.pg_stat_get_xact_numscans(c.oid), 0)
    END AS scans
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'i', 'I', 'm', 'v', 'f')
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'airlock')
AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp%'
ORDER BY c.oid
