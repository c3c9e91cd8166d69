-- The row of one migration of a deploy, if it has begun it.
SELECT version, name, checksum, state, deploy, position, applied_at,
    forward_sql AS forward, reverse_sql AS reverse, segments_done, reverse_segments_done
FROM airlock.migration
WHERE deploy = $1 AND version = $2
