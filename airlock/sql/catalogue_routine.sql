-- One row: a function, procedure or aggregate.
-- https://www.postgresql.org/docs/current/catalog-pg-proc.html
SELECT pg_catalog.format('%s %I.%I(%s)',
           CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END,
           n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)) AS key,
       n.nspname AS schema,
       p.proname AS name,
       CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition,
       CASE WHEN p.prokind = 'a' THEN
           pg_catalog.pg_get_function_arguments(p.oid) END AS arguments,
       CASE WHEN p.prokind = 'a' THEN
           pg_catalog.format_type(p.prorettype, NULL) END AS returns,
       CASE WHEN p.prokind = 'a' THEN p.proparallel::pg_catalog.text END AS parallel,
       CASE WHEN a.aggfnoid IS NOT NULL THEN pg_catalog.concat_ws(
           ', ', 'kind ' || a.aggkind::pg_catalog.text, 'direct ' || a.aggnumdirectargs,
           'sfunc ' || a.aggtransfn, 'stype ' || pg_catalog.format_type(a.aggtranstype, NULL),
           'sspace ' || a.aggtransspace, 'initcond ' || a.agginitval,
           'finalfunc ' || a.aggfinalfn, 'extra ' || a.aggfinalextra,
           'modify ' || a.aggfinalmodify::pg_catalog.text, 'combine ' || a.aggcombinefn,
           'serial ' || a.aggserialfn, 'deserial ' || a.aggdeserialfn,
           'msfunc ' || a.aggmtransfn, 'minvfunc ' || a.aggminvtransfn,
           'mstype ' || nullif(a.aggmtranstype, 0)::pg_catalog.regtype,
           'msspace ' || a.aggmtransspace, 'minitcond ' || a.aggminitval,
           'mfinalfunc ' || a.aggmfinalfn, 'mextra ' || a.aggmfinalextra,
           'mmodify ' || a.aggmfinalmodify::pg_catalog.text,
           'sort ' || nullif(a.aggsortop, 0)::pg_catalog.regoperator) END AS aggregates,
       pg_catalog.pg_get_userbyid(p.proowner) AS owner,
       (SELECT pg_catalog.array_agg(g.item::pg_catalog.text ORDER BY g.item::pg_catalog.text COLLATE "C")
          FROM pg_catalog.unnest(p.proacl) AS g (item)
         WHERE NOT (p.proacl @> d.built_in AND p.proacl <@ d.built_in)) AS grants,
       k.description AS comment
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL (SELECT pg_catalog.acldefault('f', p.proowner) AS built_in) AS d
  LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass
   AND k.objoid = p.oid AND k.objsubid = 0
 WHERE n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   -- Of an extension, or made with something else: the constructors of a range type.
   AND p.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND x.deptype IN ('e', 'i'))
 ORDER BY p.oid
