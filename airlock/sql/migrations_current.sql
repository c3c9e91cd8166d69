-- One row per migration that stands in this database, begun ones included.
SELECT version, name, checksum, state, deploy, position, applied_at,
    forward_sql AS forward, reverse_sql AS reverse, segments_done, reverse_segments_done
FROM airlock.migration
WHERE state NOT IN ('rolled_back', 'replaced')
ORDER BY version
