-- A row is the column $2 of the relation with the OID $1: whether a backfill may walk along it, and what keeps it
-- from changing every row that it should. is_builtin: its operators are found whatever the search
-- path. is_led: it is the first column of a whole, valid, unique index in its own order.
-- https://www.postgresql.org/docs/current/catalog-pg-index.html
SELECT c.relkind::pg_catalog.text AS relkind,
    pg_catalog.format('%I.%I', n.nspname, c.relname) AS relation,
    pg_catalog.row_security_active(c.oid) AS has_row_security,
    c.relkind = 'r' AND EXISTS (
        SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid
    ) AS has_children,
    a.attnotnull AS is_not_null,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
    pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.typname) AS exact_type,
    COALESCE(b.typnamespace, t.typnamespace) = 'pg_catalog'::pg_catalog.regnamespace
        OR t.typtype = 'e' AS is_builtin,
    EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_opclass AS o ON o.oid = i.indclass[0]
        WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisunique AND i.indisvalid
        AND i.indpred IS NULL AND i.indcollation[0] = a.attcollation AND o.opcdefault
    ) AS is_led
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
WHERE c.oid = $1
