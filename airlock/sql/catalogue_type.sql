-- One row: an enum, domain, range or base type. Composite types are among the relations.
-- https://www.postgresql.org/docs/current/catalog-pg-type.html
SELECT pg_catalog.format('%s %I.%I',
           CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range type'
                          ELSE 'base type' END, n.nspname, t.typname) AS key,
       n.nspname AS schema,
       t.typname AS name,
       CASE WHEN t.typtype = 'e' THEN (
           SELECT pg_catalog.array_agg(e.enumlabel::pg_catalog.text ORDER BY e.enumsortorder)
             FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid) END AS labels,
       CASE WHEN t.typtype = 'd' THEN
           pg_catalog.format_type(t.typbasetype, t.typtypmod) END AS type,
       CASE WHEN t.typtype = 'd' THEN coalesce(
           pg_catalog.pg_get_expr(t.typdefaultbin, 0), t.typdefault) END AS default,
       CASE WHEN t.typnotnull THEN true END AS not_null,
       CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation
            THEN t.typcollation::pg_catalog.regcollation::pg_catalog.text END AS collation,
       CASE WHEN t.typtype = 'r' THEN pg_catalog.concat_ws(
           ', ', 'subtype ' || pg_catalog.format_type(r.rngsubtype, NULL),
           'collation ' || nullif(r.rngcollation, 0)::pg_catalog.regcollation,
           'opclass ' || (SELECT pg_catalog.format('%I.%I', m.nspname, c.opcname)
                            FROM pg_catalog.pg_opclass AS c
                            JOIN pg_catalog.pg_namespace AS m ON m.oid = c.opcnamespace
                           WHERE c.oid = r.rngsubopc),
           'multirange ' || r.rngmultitypid::pg_catalog.regtype, -- 14
           'canonical ' || r.rngcanonical, 'subdiff ' || r.rngsubdiff) END AS range,
       CASE WHEN t.typtype = 'b' THEN pg_catalog.concat_ws(
           ', ', 'length ' || t.typlen, 'by value ' || t.typbyval, 'align ' || t.typalign::pg_catalog.text,
           'storage ' || t.typstorage::pg_catalog.text, 'category ' || t.typcategory::pg_catalog.text,
           'preferred ' || t.typispreferred, 'delimiter ' || t.typdelim::pg_catalog.text,
           'element ' || nullif(t.typelem, 0)::pg_catalog.regtype, 'input ' || t.typinput,
           'output ' || t.typoutput, 'receive ' || t.typreceive, 'send ' || t.typsend,
           'modifier in ' || t.typmodin, 'modifier out ' || t.typmodout,
           'analyze ' || t.typanalyze, 'default ' || t.typdefault) END AS base,
       pg_catalog.pg_get_userbyid(t.typowner) AS owner,
       (SELECT pg_catalog.array_agg(g.item::pg_catalog.text ORDER BY g.item::pg_catalog.text COLLATE "C")
          FROM pg_catalog.unnest(t.typacl) AS g (item)
         WHERE NOT (t.typacl @> d.built_in AND t.typacl <@ d.built_in)) AS grants,
       k.description AS comment
  FROM pg_catalog.pg_type AS t
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
 CROSS JOIN LATERAL (SELECT pg_catalog.acldefault('T', t.typowner) AS built_in) AS d
  LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
  LEFT JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = 'pg_catalog.pg_type'::pg_catalog.regclass
   AND k.objoid = t.oid AND k.objsubid = 0
 WHERE t.typtype IN ('e', 'd', 'r', 'b')
   AND t.typcategory <> 'A' -- an array type comes and goes with its element
   AND n.nspname NOT IN ('information_schema', 'airlock')
   AND n.nspname NOT LIKE 'pg\_%'
   AND t.oid NOT IN (SELECT x.objid FROM pg_catalog.pg_depend AS x
                      WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND x.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                        AND x.deptype = 'e')
 ORDER BY t.oid
