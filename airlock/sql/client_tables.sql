-- A row is a table that one of the names $1 (quoted, perhaps qualified) stands for and that is there,
-- outside of the schemas of PostgreSQL and of Airlock; in the order of the names.
SELECT pg_catalog.format('%I.%I', s.nspname, c.relname) AS name
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS wanted (name, position)
JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(wanted.name)
JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND s.nspname NOT IN ('pg_catalog', 'information_schema', 'airlock')
GROUP BY s.nspname, c.relname
ORDER BY min(wanted.position)
