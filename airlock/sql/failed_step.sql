-- The step of deploy $1 that failed last and was not done after that; the undoing ones, $2, are none.
SELECT e.step
FROM airlock.event AS e
WHERE e.deploy = $1 AND e.phase = 'failed' AND e.step <> ALL ($2) AND NOT EXISTS (
    SELECT FROM airlock.event AS later
    WHERE later.deploy = e.deploy AND later.step = e.step AND later.phase = 'done'
        AND later.sequence > e.sequence
)
ORDER BY e.sequence DESC
LIMIT 1
