-- One row: all that predictions ask of a database, as one JSON text. Sizes are estimates.
-- https://www.postgresql.org/docs/current/catalogs.html
WITH relation AS (
    SELECT c.oid, c.relkind, c.relispartition, c.relpersistence, c.reltuples, c.reloftype, c.reltype,
        pg_catalog.concat(n.nspname, '.', c.relname) AS key,
        pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'i', 'I', 'm', 'v', 'f', 'S', 'c')
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'airlock')
    AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp%'
),
typed AS (
    SELECT y.oid, y.typtype, y.typrelid, y.typnotnull, y.typbasetype, y.typtypmod,
        CASE WHEN n.nspname = 'pg_catalog' THEN y.typname::pg_catalog.text
            ELSE pg_catalog.concat(n.nspname, '.', y.typname) END AS key
    FROM pg_catalog.pg_type AS y
    JOIN pg_catalog.pg_namespace AS n ON n.oid = y.typnamespace
)
SELECT pg_catalog.json_build_object(
    'time_zone', pg_catalog.current_setting('TimeZone'),
    'relations', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'key', r.key, 'name', r.name, 'kind', r.relkind,
            'unlogged', r.relpersistence = 'u',
            'rows', CASE WHEN r.reltuples < 0 THEN NULL ELSE r.reltuples::bigint END,
            'bytes', CASE WHEN r.relkind IN ('r', 'm') THEN pg_catalog.pg_total_relation_size(r.oid)
                WHEN r.relkind = 'p' THEN (
                    SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid))
                    FROM pg_catalog.pg_partition_tree(r.oid) AS t) END,
            'of_type', (SELECT y.key FROM typed AS y WHERE y.oid = r.reloftype),
            'rules', (
                SELECT pg_catalog.json_agg(CASE w.ev_type WHEN '2' THEN 'UpdateStmt'
                    WHEN '3' THEN 'InsertStmt' ELSE 'DeleteStmt' END)
                FROM pg_catalog.pg_rewrite AS w
                WHERE w.ev_class = r.oid AND w.ev_type <> '1'),
            'partition_key', (
                SELECT pg_catalog.json_agg(COALESCE(a.attname, '') ORDER BY k.place)
                FROM pg_catalog.pg_partitioned_table AS t
                CROSS JOIN pg_catalog.unnest(t.partattrs::smallint[])
                    WITH ORDINALITY AS k (number, place)
                LEFT JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = t.partrelid AND a.attnum = k.number AND k.number > 0
                WHERE t.partrelid = r.oid),
            'definition', CASE WHEN r.relkind IN ('v', 'm')
                THEN pg_catalog.pg_get_viewdef(r.oid) END
        )) FROM relation AS r WHERE r.relkind NOT IN ('i', 'I')
    ),
    'columns', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
            r.key, a.attname, y.key,
            pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attgenerated = 'v'
        ) ORDER BY r.key, a.attnum)
        FROM relation AS r
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0
            AND NOT a.attisdropped
        JOIN typed AS y ON y.oid = a.atttypid
        WHERE r.relkind IN ('r', 'p', 'm', 'f', 'v', 'c')
    ),
    'indexes', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'key', r.key, 'name', r.name, 'table', t.key, 'unique', i.indisunique,
            'primary', i.indisprimary, 'valid', i.indisvalid, 'partial', i.indpred IS NOT NULL,
            'columns', (
                SELECT pg_catalog.json_agg(COALESCE(a.attname, '') ORDER BY k.place)
                FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
                LEFT JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0),
            'mentions', (
                SELECT pg_catalog.json_agg(DISTINCT a.attname)
                FROM pg_catalog.pg_depend AS d
                JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.objid = r.oid AND d.refobjid = t.oid AND d.refobjsubid > 0)
        )) FROM pg_catalog.pg_index AS i
        JOIN relation AS r ON r.oid = i.indexrelid
        JOIN relation AS t ON t.oid = i.indrelid
    ),
    'constraints', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'table', r.key, 'name', o.conname, 'kind', o.contype, 'valid', o.convalidated,
            'index', x.key, 'references', f.key,
            'columns', (
                SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
                FROM pg_catalog.unnest(o.conkey) WITH ORDINALITY AS k (number, place)
                JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = o.conrelid AND a.attnum = k.number),
            'referenced', (
                SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
                FROM pg_catalog.unnest(o.confkey) WITH ORDINALITY AS k (number, place)
                JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = o.confrelid AND a.attnum = k.number),
            'on_delete', o.confdeltype, 'on_update', o.confupdtype,
            'expression', CASE WHEN o.contype = 'c'
                THEN pg_catalog.pg_get_expr(o.conbin, o.conrelid) END
        ))
        FROM pg_catalog.pg_constraint AS o
        JOIN relation AS r ON r.oid = o.conrelid
        LEFT JOIN relation AS x ON x.oid = o.conindid
        LEFT JOIN relation AS f ON f.oid = o.confrelid
        WHERE o.contype IN ('c', 'f', 'p', 'u', 'x', 'n')
    ),
    'parents', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
            c.key, p.key, pg_catalog.pg_get_expr(k.relpartbound, k.oid) = 'DEFAULT'))
        FROM pg_catalog.pg_inherits AS h
        JOIN relation AS c ON c.oid = h.inhrelid
        JOIN relation AS p ON p.oid = h.inhparent
        JOIN pg_catalog.pg_class AS k ON k.oid = c.oid
    ),
    -- A view or materialised view and what it reads, column by column.
    'reads', (
        SELECT pg_catalog.json_agg(DISTINCT pg_catalog.concat_ws(pg_catalog.chr(1), v.key, r.key, a.attname))
        FROM pg_catalog.pg_rewrite AS w
        JOIN relation AS v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
        JOIN pg_catalog.pg_depend AS d ON d.objid = w.oid
            AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> v.oid
        JOIN relation AS r ON r.oid = d.refobjid
        LEFT JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
    ),
    'triggers', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
            r.key, t.tgname, pg_catalog.concat(n.nspname, '.', p.proname), t.tgtype))
        FROM pg_catalog.pg_trigger AS t
        JOIN relation AS r ON r.oid = t.tgrelid
        JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE NOT t.tgisinternal
    ),
    'statistics', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
            pg_catalog.concat(n.nspname, '.', s.stxname), r.key))
        FROM pg_catalog.pg_statistic_ext AS s
        JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
        JOIN relation AS r ON r.oid = s.stxrelid
    ),
    'types', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'key', y.key, 'kind', y.typtype, 'base', b.key,
            'base_text', pg_catalog.format_type(y.typbasetype, y.typtypmod),
            'constrained', y.typnotnull OR EXISTS (
                SELECT FROM pg_catalog.pg_constraint AS o WHERE o.contypid = y.oid)
        ))
        FROM typed AS y
        LEFT JOIN typed AS b ON b.oid = y.typbasetype
        LEFT JOIN pg_catalog.pg_class AS c ON c.oid = y.typrelid
        WHERE y.typtype IN ('d', 'e') OR c.relkind = 'c'
    ),
    -- What is not in pg_catalog, and there what is volatile.
    'functions', (
        SELECT pg_catalog.json_agg(DISTINCT pg_catalog.concat_ws(
            pg_catalog.chr(1), n.nspname, p.proname,
            -- One of SQL may be put in where it is called, and is as volatile as what is in it.
            CASE WHEN p.provolatile = 'v' AND l.lanname = 'sql' THEN 'u' ELSE p.provolatile END))
        FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname <> 'information_schema'
        AND (n.nspname <> 'pg_catalog' OR p.provolatile = 'v')
    )
)::pg_catalog.text
