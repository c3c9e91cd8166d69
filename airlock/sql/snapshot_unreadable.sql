-- A row is one relation that pg_dump must read and that the current role may not.
-- https://www.postgresql.org/docs/current/app-pgdump.html (it locks each table ACCESS SHARE)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS relation
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S')
  AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema'
  AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
               ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END
ORDER BY 1
