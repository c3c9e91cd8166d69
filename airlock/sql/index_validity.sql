-- One boolean, or no row: is the index $2 of the table with the OID $1 valid and ready?
SELECT i.indisvalid AND i.indisready AS is_valid
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND c.relname = $2::pg_catalog.text
