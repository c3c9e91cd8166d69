-- A row is one database whose comment begins with the mark, and the number of the deploy after it.
SELECT d.datname::pg_catalog.text AS name,
       pg_catalog.substr(pg_catalog.shobj_description(d.oid, 'pg_database'), pg_catalog.length($1) + 1) AS deploy
FROM pg_catalog.pg_database AS d
WHERE pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1)
ORDER BY 1
