-- One row per column of table $1 named in $2 that holds data of its own: its default and its
-- type as SQL.
-- https://www.postgresql.org/docs/current/catalog-pg-attrdef.html
SELECT a.attname AS name,
    COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'NULL') AS value,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type
FROM pg_catalog.pg_attribute AS a
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = pg_catalog.to_regclass($1)
AND a.attname = ANY ($2::text[]) AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
