-- Whether the table $1 is $2, or a partition of it.
-- https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-PARTITION
SELECT pg_catalog.to_regclass($1) = pg_catalog.to_regclass($2) OR EXISTS (
    SELECT FROM pg_catalog.pg_partition_ancestors(pg_catalog.to_regclass($1)) AS a
    WHERE a.relid = pg_catalog.to_regclass($2)
)
