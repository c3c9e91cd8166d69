-- One row per finished or stranded deploy of a target that began since $2, oldest first.
-- Dry runs and refreshes, whose request knows no dry run, are no deploys here.
SELECT
    d.id,
    d.state,
    d.created_at,
    d.finished_at,
    d.release ->> 'commit' AS commit,
    (d.release ->> 'committed_at')::pg_catalog.timestamptz AS committed_at,
    -- The failure that the rollback answers, or the moment when a person asked for one. A step that
    -- was tried again with success is no failure.
    coalesce(
        (
            SELECT pg_catalog.min(e.at) FROM airlock.event AS e
            WHERE e.deploy = d.id AND e.phase = 'failed' AND e.step = d.failed_step
                AND NOT EXISTS (
                    SELECT FROM airlock.event AS later
                    WHERE later.deploy = e.deploy AND later.step = e.step
                        AND later.phase = 'done' AND later.sequence > e.sequence
                )
        ),
        (SELECT pg_catalog.min(e.at) FROM airlock.event AS e WHERE e.deploy = d.id AND e.step = $3)
    ) AS failed_at
FROM airlock.deploy AS d
WHERE d.target = $1 AND d.created_at >= $2 AND d.request ->> 'dry_run' = 'false'
    AND d.state IN ('succeeded', 'failed', 'rolled_back', 'stranded')
ORDER BY d.id
