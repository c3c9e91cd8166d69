-- One row: a constraint of a table or a domain, except NOT NULL, which is in its column.
-- https://www.postgresql.org/docs/current/catalog-pg-constraint.html
SELECT pg_catalog.format('constraint %I.%I.%I', n.nspname, coalesce(c.relname, t.typname),
                         o.conname) AS key,
       n.nspname AS schema,
       coalesce(c.relname, t.typname) AS table,
       o.conname AS name,
       pg_catalog.pg_get_constraintdef(o.oid) AS definition,
       CASE WHEN NOT o.convalidated THEN false END AS validated,
       CASE WHEN NOT o.conenforced THEN false END AS enforced, -- 18
       CASE WHEN o.condeferrable THEN true END AS deferrable,
       CASE WHEN o.condeferred THEN true END AS deferred,
       CASE WHEN o.connoinherit AND o.contype = 'c' THEN true END AS no_inherit,
       CASE WHEN NOT o.conislocal THEN true END AS inherited,
       -- ALTER TABLE … DISABLE TRIGGER ALL switches a foreign key off and leaves it "valid".
       CASE WHEN g.disabled THEN true END AS disabled,
       k.description AS comment
  FROM pg_catalog.pg_constraint AS o
  LEFT JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
  LEFT JOIN pg_catalog.pg_type AS t ON t.oid = o.contypid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
  LEFT JOIN (
       SELECT r.tgconstraint, true AS disabled
         FROM pg_catalog.pg_trigger AS r
        WHERE r.tgconstraint <> 0 AND r.tgisinternal AND r.tgenabled <> 'O'
        GROUP BY r.tgconstraint) AS g ON g.tgconstraint = o.oid
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
   AND k.objoid = o.oid AND k.objsubid = 0
 WHERE o.contype IN ('c', 'f', 'p', 'u', 'x')
   AND n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND o.conrelid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                           WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                             AND x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                             AND x.deptype = 'e')
   AND o.contypid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                           WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                             AND x.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                             AND x.deptype = 'e')
 ORDER BY o.oid
