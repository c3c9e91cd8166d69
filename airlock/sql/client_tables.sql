-- A row is a table that one of the OIDs $1 stands for, outside of the schemas of PostgreSQL and of
-- Airlock; in their order.
SELECT pg_catalog.format('%I.%I', s.nspname, c.relname) AS name
FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS wanted (oid, position)
JOIN pg_catalog.pg_class AS c ON c.oid = wanted.oid
JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND s.nspname NOT IN ('pg_catalog', 'information_schema', 'airlock')
GROUP BY s.nspname, c.relname
ORDER BY pg_catalog.min(wanted.position)
