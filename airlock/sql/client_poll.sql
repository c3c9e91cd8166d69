-- A row is how far deploy $1 has come: its state and fence, whether a person is waited for, when
-- production was first touched, and the time by the database's clock.
SELECT d.state, d.fence, d.state = 'rehearsed' AND d.approval IS NOT NULL AS is_asked, (
        SELECT pg_catalog.min(e.at) FROM airlock.event AS e
        WHERE e.deploy = d.id AND e.step = 'apply_plan' AND e.phase = 'intent'
    ) AS touched_at, pg_catalog.clock_timestamp() AS now
FROM airlock.deploy AS d
WHERE d.id = $1
