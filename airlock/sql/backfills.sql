-- One row per backfill that deploy $1 began, in the order of the plan.
SELECT b.version, m.name, b.direction, b.upper_key, b.last_key, b.changed_rows, b.walked_rows,
    b.expected_rows, b.batches
FROM airlock.backfill AS b
JOIN airlock.migration AS m ON m.deploy = b.deploy AND m.version = b.version
WHERE b.deploy = $1
ORDER BY m.position, b.direction
