-- One row per table that holds rows of the users, with its columns and foreign keys as JSON.
-- Not the members of an extension, whose script fills them, nor foreign tables, which hold none.
-- https://www.postgresql.org/docs/current/catalog-pg-attribute.html
WITH types AS (
    -- Each type with the one that it comes down to: a domain may be one of a domain.
    WITH RECURSIVE chain AS (
        SELECT t.oid, t.oid AS base, t.typtype, t.typbasetype, t.typtypmod AS typmod,
               t.typnotnull AS not_null
          FROM pg_catalog.pg_type AS t
        UNION ALL
        SELECT c.oid, t.oid, t.typtype, t.typbasetype,
               CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE c.typmod END,
               c.not_null OR t.typnotnull
          FROM chain AS c
          JOIN pg_catalog.pg_type AS t ON c.typtype = 'd' AND t.oid = c.typbasetype
    )
    SELECT oid, base, typmod, not_null FROM chain WHERE typtype <> 'd'
), words AS (
    -- Types in which words can stand; of an array, what its elements are.
    SELECT t.oid,
           CASE WHEN n.nspname = 'pg_catalog' OR t.typname IN ('citext', 'hstore')
                THEN t.typname::pg_catalog.text ELSE '' END AS name,
           e.typcategory IN ('S', 'C') OR e.typname IN ('json', 'jsonb', 'xml', 'tsvector', 'hstore')
               AS holds_text
      FROM pg_catalog.pg_type AS t
      JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
      LEFT JOIN types AS i ON i.oid = t.typelem AND t.typcategory = 'A'
      JOIN pg_catalog.pg_type AS e ON e.oid = COALESCE(i.base, t.oid)
), columns AS (
    SELECT a.attrelid,
           pg_catalog.json_agg(pg_catalog.json_build_object(
               'name', a.attname,
               'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'base', w.name,
               'limit', CASE WHEN w.name IN ('varchar', 'bpchar', '_varchar') AND m.typmod > 4
                             THEN m.typmod - 4 END,
               'precision', CASE WHEN w.name = 'numeric' AND m.typmod > 4
                                 THEN (m.typmod - 4) >> 16 & 65535 END,
               -- Eleven bits with a sign, from 15 on.
               'scale', CASE WHEN w.name = 'numeric' AND m.typmod > 4
                             THEN ((m.typmod - 4) & 2047 # 1024) - 1024 END,
               'not_null', a.attnotnull OR t.not_null,
               'generated', a.attgenerated <> '',
               -- A column that an expression of the key reads depends on the table itself.
               'distributes', COALESCE(a.attnum = ANY (p.partattrs::smallint[]), false) OR EXISTS (
                   SELECT FROM pg_catalog.pg_depend AS x
                    WHERE p.partrelid IS NOT NULL AND x.deptype = 'i'
                      AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND x.objid = a.attrelid AND x.objsubid = a.attnum
                      AND x.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND x.refobjid = a.attrelid AND x.refobjsubid = 0),
               'holds_text', w.holds_text) ORDER BY a.attnum) AS columns
      FROM pg_catalog.pg_attribute AS a
      JOIN types AS t ON t.oid = a.atttypid
      JOIN words AS w ON w.oid = t.base
      LEFT JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = a.attrelid
     CROSS JOIN LATERAL (
           SELECT CASE WHEN a.atttypid = t.base THEN a.atttypmod ELSE t.typmod END AS typmod) AS m
     WHERE a.attnum > 0 AND NOT a.attisdropped
     GROUP BY a.attrelid
), keys AS (
    SELECT k.conrelid,
           pg_catalog.json_agg(pg_catalog.json_build_object(
               'name', k.conname,
               'columns', mine.names,
               'references', pg_catalog.json_build_array(n.nspname, c.relname),
               'referenced', theirs.names) ORDER BY k.conname) AS foreign_keys
      FROM pg_catalog.pg_constraint AS k
      JOIN pg_catalog.pg_class AS c ON c.oid = k.confrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
           SELECT pg_catalog.array_agg(a.attname ORDER BY u.place) AS names
             FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (number, place)
             JOIN pg_catalog.pg_attribute AS a
               ON a.attrelid = k.conrelid AND a.attnum = u.number) AS mine
     CROSS JOIN LATERAL (
           SELECT pg_catalog.array_agg(a.attname ORDER BY u.place) AS names
             FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u (number, place)
             JOIN pg_catalog.pg_attribute AS a
               ON a.attrelid = k.confrelid AND a.attnum = u.number) AS theirs
     -- A partition has copies of the keys of its root.
     WHERE k.contype = 'f' AND k.conparentid = 0
     GROUP BY k.conrelid
)
SELECT n.nspname AS schema,
       c.relname AS name,
       c.relkind = 'p' AS partitioned,
       CASE WHEN c.relispartition THEN pg_catalog.json_build_array(rn.nspname, r.relname) END AS root,
       COALESCE(s.columns, '[]') AS columns,
       COALESCE(k.foreign_keys, '[]') AS foreign_keys,
       (SELECT pg_catalog.json_agg(a.attname ORDER BY u.place)
          FROM pg_catalog.pg_constraint AS o
         CROSS JOIN pg_catalog.unnest(o.conkey) WITH ORDINALITY AS u (number, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = u.number
         WHERE o.conrelid = c.oid AND o.contype = 'p') AS primary_key
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class AS r
    ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
  LEFT JOIN columns AS s ON s.attrelid = c.oid
  LEFT JOIN keys AS k ON k.conrelid = c.oid
 WHERE c.relkind IN ('r', 'p')
   AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('information_schema', 'airlock', 'airlock_mask')
   AND n.nspname NOT LIKE 'pg\_%'
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend AS x
        WHERE x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.objid = c.oid
          AND x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND x.deptype = 'e')
 ORDER BY n.nspname, c.relname
