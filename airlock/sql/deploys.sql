-- A row is a deploy, and how long its runner has been silent. While a transaction of its own locks the
-- row it cannot beat; the session that has it, known by its name, says as much.
SELECT d.*, CASE
    WHEN EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity AS a
        WHERE a.datname = pg_catalog.current_database() AND a.application_name IN (
            'airlock apply ' || d.fence, 'airlock rollback ' || d.fence
        )
    ) THEN 0
    ELSE extract(epoch FROM pg_catalog.clock_timestamp() - d.heartbeat_at)::pg_catalog.float8
END AS silent_s
FROM airlock.deploy AS d
