-- One row per migration that a deploy began, in the order of its plan.
SELECT version, name, checksum, state, deploy, position, applied_at,
    forward_sql AS forward, reverse_sql AS reverse, segments_done, reverse_segments_done
FROM airlock.migration
WHERE deploy = $1
ORDER BY position
