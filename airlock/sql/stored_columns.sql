-- One row per column of the users' tables that holds data, and one per table without columns.
-- By OID and number, so that a renamed one is the same one.
SELECT c.oid::bigint AS oid, COALESCE(a.attnum, 0)::integer AS number,
    n.nspname AS schema, c.relname AS "table", a.attname AS "column"
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'airlock')
ORDER BY n.nspname, c.relname, a.attname
