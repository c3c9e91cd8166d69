-- Whether nobody has made anything in the current database: objects below 16384 are initdb's.
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS n WHERE n.oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension AS e WHERE e.oid >= 16384)
