-- One row: something that acts on the rows of one relation: a trigger, a rule, or a policy.
-- https://www.postgresql.org/docs/current/catalog-pg-trigger.html, pg-rewrite, pg-policy
SELECT pg_catalog.format('%s %I.%I.%I', r.kind, n.nspname, c.relname, r.name) AS key,
       n.nspname AS schema,
       c.relname AS table,
       r.name,
       r.definition,
       r.enabled,
       r.inherited,
       k.description AS comment
  FROM (SELECT 'trigger' AS kind, t.tgname::pg_catalog.text AS name, t.tgrelid AS relation,
               pg_catalog.pg_get_triggerdef(t.oid) AS definition,
               CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica'
                                WHEN 'A' THEN 'always' END AS enabled,
               CASE WHEN t.tgparentid <> 0 THEN true END AS inherited,
               'pg_catalog.pg_trigger'::pg_catalog.regclass AS class, t.oid
          FROM pg_catalog.pg_trigger AS t
         WHERE NOT t.tgisinternal
         UNION ALL
        SELECT 'rule', w.rulename::pg_catalog.text, w.ev_class,
               pg_catalog.pg_get_ruledef(w.oid),
               CASE w.ev_enabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica'
                                 WHEN 'A' THEN 'always' END,
               NULL, 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid
          FROM pg_catalog.pg_rewrite AS w
         WHERE w.rulename <> '_RETURN'
         UNION ALL
        SELECT 'policy', p.polname::pg_catalog.text, p.polrelid,
               pg_catalog.concat_ws(
                   ' ', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, 'FOR',
                   CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                                 WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                   'TO', (SELECT pg_catalog.string_agg(v.name, ', ' ORDER BY v.name COLLATE "C")
                            FROM pg_catalog.unnest(p.polroles) AS u (role)
                           CROSS JOIN LATERAL (
                                 SELECT CASE u.role WHEN 0 THEN 'PUBLIC'
                                        ELSE u.role::pg_catalog.regrole::pg_catalog.text END) AS v (name)),
                   'USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')',
                   'WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')'),
               NULL, NULL, 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid
          FROM pg_catalog.pg_policy AS p) AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.relation
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = r.class AND k.objoid = r.oid AND k.objsubid = 0
 WHERE n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND c.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND x.deptype = 'e')
 ORDER BY r.class, r.oid
