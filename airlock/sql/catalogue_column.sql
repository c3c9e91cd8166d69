-- One row: a column of a relation, or an attribute of a composite type.
-- https://www.postgresql.org/docs/current/catalog-pg-attribute.html
-- The position is left out: a dropped column that a rollback adds again stands last, and
-- nothing that names its columns can tell.
SELECT pg_catalog.format('%s %I.%I.%I',
           CASE c.relkind WHEN 'c' THEN 'attribute' ELSE 'column' END,
           n.nspname, c.relname, a.attname) AS key,
       n.nspname AS schema,
       c.relname AS table,
       a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN a.attgenerated = '' THEN
           pg_catalog.pg_get_expr(f.adbin, f.adrelid) END AS default,
       CASE a.attgenerated WHEN 's' THEN pg_catalog.pg_get_expr(f.adbin, f.adrelid) || ' STORED'
                           WHEN 'v' THEN pg_catalog.pg_get_expr(f.adbin, f.adrelid) || ' VIRTUAL'
           END AS generated,
       CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
       CASE WHEN a.attnotnull THEN true END AS not_null,
       -- From 18 on NOT NULL is a constraint with a name. A generated name follows what the table
       -- was called on that day, so dropping and adding the column would change it: left out.
       CASE WHEN u.conname !~ '_not_null[0-9]*$' THEN u.conname END AS not_null_name, -- 18
       CASE WHEN NOT u.convalidated THEN false END AS not_null_validated, -- 18
       CASE WHEN u.connoinherit THEN true END AS not_null_no_inherit, -- 18
       v.description AS not_null_comment, -- 18
       CASE WHEN a.attcollation <> t.typcollation THEN (
           SELECT pg_catalog.format('%I.%I', m.nspname, l.collname)
             FROM pg_catalog.pg_collation AS l
             JOIN pg_catalog.pg_namespace AS m ON m.oid = l.collnamespace
            WHERE l.oid = a.attcollation) END AS collation,
       CASE WHEN a.attstorage <> t.typstorage THEN
           CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external'
                             WHEN 'm' THEN 'main' ELSE 'extended' END END AS storage,
       CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression, -- 14
       nullif(a.attstattarget, -1) AS statistics_target,
       CASE WHEN a.attoptions IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
             FROM pg_catalog.unnest(a.attoptions) AS o (item)) END AS options,
       CASE WHEN a.attfdwoptions IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
             FROM pg_catalog.unnest(a.attfdwoptions) AS o (item)) END AS server_options,
       CASE WHEN a.attacl IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(g.item::pg_catalog.text ORDER BY g.item::pg_catalog.text COLLATE "C")
             FROM pg_catalog.unnest(a.attacl) AS g (item)) END AS grants,
       CASE WHEN NOT a.attislocal THEN true END AS inherited,
       k.description AS comment
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
   AND k.objoid = a.attrelid AND k.objsubid = a.attnum
  LEFT JOIN pg_catalog.pg_constraint AS u -- 18
    ON u.contype = 'n' AND u.conrelid = a.attrelid AND u.conkey[1] = a.attnum -- 18
  LEFT JOIN pg_catalog.pg_description AS v -- 18
    ON v.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND v.objoid = u.oid -- 18
 WHERE a.attnum > 0
   AND NOT a.attisdropped
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
   AND n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND c.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND x.deptype = 'e')
 ORDER BY a.attrelid, a.attnum
