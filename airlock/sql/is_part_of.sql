-- Whether the table $1 is $2, or a partition of it; both by OID.
-- https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-PARTITION
SELECT $1::pg_catalog.oid = $2::pg_catalog.oid OR EXISTS (
    SELECT FROM pg_catalog.pg_partition_ancestors($1) AS a WHERE a.relid = $2
)
