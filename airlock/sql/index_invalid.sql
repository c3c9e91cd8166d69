-- A row is one of the indexes named in $1 that is invalid, quoted and qualified.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.unnest($1::text[]) AS x (name)
JOIN pg_catalog.pg_index AS i ON i.indexrelid = pg_catalog.to_regclass(x.name)
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid
