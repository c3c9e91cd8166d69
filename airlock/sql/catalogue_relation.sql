-- One row: a table, view, materialised view, sequence, foreign table or composite type.
-- https://www.postgresql.org/docs/current/catalog-pg-class.html
SELECT pg_catalog.format('%s %I.%I',
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                          WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table'
                          WHEN 'c' THEN 'composite type' ELSE 'table' END,
           n.nspname, c.relname) AS key,
       n.nspname AS schema,
       c.relname AS name,
       CASE WHEN c.relkind = 'p' THEN true END AS partitioned,
       CASE c.relpersistence WHEN 'u' THEN 'unlogged' END AS persistence,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       -- NULL stands for the built-in privileges; GRANT then REVOKE spells the same ones out.
       CASE WHEN NOT (d.acl @> d.built_in AND d.acl <@ d.built_in) THEN (
           SELECT pg_catalog.array_agg(g.item::pg_catalog.text ORDER BY g.item::pg_catalog.text COLLATE "C")
             FROM pg_catalog.unnest(d.acl) AS g (item)) END AS grants,
       CASE WHEN c.relrowsecurity THEN true END AS row_security,
       CASE WHEN c.relforcerowsecurity THEN true END AS force_row_security,
       CASE WHEN c.reloptions IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
             FROM pg_catalog.unnest(c.reloptions) AS o (item)) END AS options,
       CASE WHEN t.reloptions IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
             FROM pg_catalog.unnest(t.reloptions) AS o (item)) END AS toast_options,
       CASE WHEN c.relkind IN ('r', 'p', 'm')
            THEN CASE c.relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
                                     WHEN 'i' THEN 'index' END END AS replica_identity,
       m.amname AS access_method,
       CASE WHEN c.reltablespace <> 0 THEN (
           SELECT s.spcname FROM pg_catalog.pg_tablespace AS s
            WHERE s.oid = c.reltablespace) END AS tablespace,
       CASE WHEN c.relkind = 'p'
            THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
       CASE WHEN c.relispartition
            THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END AS partition_bound,
       p.parents,
       p.detach_pending, -- 14
       CASE WHEN c.reloftype <> 0 THEN c.reloftype::pg_catalog.regtype::pg_catalog.text END AS of_type,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END AS definition,
       -- A materialised view without data cannot be read, so pg_dump keeps this too.
       CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN false END AS populated,
       w.srvname AS server,
       CASE WHEN f.ftoptions IS NOT NULL THEN (
           SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
             FROM pg_catalog.unnest(f.ftoptions) AS o (item)) END AS server_options,
       -- Parameters only: how far a sequence has counted is data.
       CASE WHEN c.relkind = 'S' THEN pg_catalog.format(
           'AS %s START %s INCREMENT %s MIN %s MAX %s CACHE %s%s',
           pg_catalog.format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin,
           q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' END) END AS parameters,
       CASE WHEN c.relkind = 'S' THEN (
           SELECT pg_catalog.format('%s.%I', e.refobjid::pg_catalog.regclass, a.attname)
             FROM pg_catalog.pg_depend AS e
             JOIN pg_catalog.pg_attribute AS a
               ON a.attrelid = e.refobjid AND a.attnum = e.refobjsubid
            WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
              AND e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND e.deptype IN ('a', 'i')) END AS owned_by,
       k.description AS comment
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_type AS y ON c.relkind = 'c' AND y.oid = c.reltype
 CROSS JOIN LATERAL (
       SELECT coalesce(c.relacl, y.typacl) AS acl,
              CASE c.relkind WHEN 'c' THEN pg_catalog.acldefault('T', c.relowner)
                             WHEN 'S' THEN pg_catalog.acldefault('s', c.relowner)
                             ELSE pg_catalog.acldefault('r', c.relowner) END AS built_in) AS d
  LEFT JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
  LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid AND t.reloptions IS NOT NULL
  LEFT JOIN pg_catalog.pg_sequence AS q ON q.seqrelid = c.oid
  LEFT JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = c.oid
  LEFT JOIN pg_catalog.pg_foreign_server AS w ON w.oid = f.ftserver
  LEFT JOIN (
       SELECT i.inhrelid,
              nullif(pg_catalog.bool_or(i.inhdetachpending), false) AS detach_pending, -- 14
              pg_catalog.array_agg(i.inhparent::pg_catalog.regclass::pg_catalog.text
                                   ORDER BY i.inhseqno) AS parents
         FROM pg_catalog.pg_inherits AS i
        GROUP BY i.inhrelid) AS p ON p.inhrelid = c.oid
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = CASE c.relkind WHEN 'c' THEN 'pg_catalog.pg_type'::pg_catalog.regclass
                                   ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END
   AND k.objoid = CASE c.relkind WHEN 'c' THEN c.reltype ELSE c.oid END
   AND k.objsubid = 0
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
   AND n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND c.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND x.deptype = 'e')
 ORDER BY c.oid
