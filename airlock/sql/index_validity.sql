-- One boolean, or no row: is the index $2 of table $1 valid and ready?
SELECT i.indisvalid AND i.indisready
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = pg_catalog.to_regclass($1) AND c.relname = $2::text
