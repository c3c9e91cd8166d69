-- A row is an invalid index, quoted and qualified, that a REINDEX CONCURRENTLY left when it was cut
-- off: of the relation with the OID $1 and its partitions; else of all in schema $2; else of the whole database.
-- What deploy $3 cannot have left, since it is older than its migration $4, is somebody else's.
-- https://www.postgresql.org/docs/current/sql-reindex.html#SQL-REINDEX-CONCURRENTLY
WITH named AS (
    SELECT $1::pg_catalog.oid AS oid
     UNION
    SELECT t.relid::pg_catalog.oid
      FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid) AS t
), reindexed AS (
    -- An index stands for its table.
    SELECT coalesce(i.indrelid, n.oid) AS oid
      FROM named AS n
      LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = n.oid
     UNION
    SELECT c.oid
      FROM pg_catalog.pg_class AS c
     WHERE $1::pg_catalog.oid IS NULL
       AND ($2::pg_catalog.text IS NULL OR c.relnamespace = pg_catalog.to_regnamespace($2::pg_catalog.text))
), place AS (
    SELECT r.oid FROM reindexed AS r
     UNION
    SELECT c.reltoastrelid
      FROM reindexed AS r
      JOIN pg_catalog.pg_class AS c ON c.oid = r.oid
)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
  FROM place AS p
  JOIN pg_catalog.pg_index AS i ON i.indrelid = p.oid
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN airlock.migration AS m ON m.deploy = $3 AND m.version = $4
 WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
   AND c.relname ~ '_cc(new|old)[0-9]*$'
   AND pg_catalog.age(c.xmin) <= pg_catalog.age((m.applied_xid % 4294967296)::pg_catalog.text::pg_catalog.xid)
 ORDER BY c.oid
