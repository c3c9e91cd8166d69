-- One row: an index, those of constraints included.
-- https://www.postgresql.org/docs/current/catalog-pg-index.html
SELECT pg_catalog.format('index %I.%I', n.nspname, c.relname) AS key,
       n.nspname AS schema,
       t.relname AS table,
       c.relname AS name,
       pg_catalog.pg_get_indexdef(c.oid) AS definition,
       CASE WHEN i.indisprimary THEN true END AS primary,
       CASE WHEN NOT i.indisvalid THEN false END AS valid,
       CASE WHEN NOT i.indisready THEN false END AS ready,
       CASE WHEN i.indisreplident THEN true END AS replica_identity,
       CASE WHEN i.indisclustered THEN true END AS clustered,
       -- Only expressions can have one; numbered by the index's own columns.
       CASE WHEN i.indexprs IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(pg_catalog.format('%s=%s', s.attnum, s.attstattarget)
                                       ORDER BY s.attnum)
             FROM pg_catalog.pg_attribute AS s
            WHERE s.attrelid = c.oid AND s.attstattarget >= 0) END AS statistics_targets,
       CASE WHEN c.reltablespace <> 0 THEN (
           SELECT p.spcname FROM pg_catalog.pg_tablespace AS p
            WHERE p.oid = c.reltablespace) END AS tablespace,
       h.inhparent::pg_catalog.regclass::pg_catalog.text AS parent,
       k.description AS comment
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = c.oid
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
   AND k.objoid = c.oid AND k.objsubid = 0
 WHERE n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND t.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND x.deptype = 'e')
 ORDER BY i.indexrelid
