-- One row per session that keeps session $1 waiting: who, since when. Not its query: that may hold
-- data. https://www.postgresql.org/docs/current/functions-info.html (pg_blocking_pids)
SELECT pg_catalog.format('process %s (%s, %s, %s, transaction open for %s s)',
    a.pid,
    COALESCE(a.usename, a.backend_type),
    COALESCE(NULLIF(a.application_name, ''), a.backend_type),
    COALESCE(a.state, 'active'),
    COALESCE(pg_catalog.round(EXTRACT(epoch FROM pg_catalog.now() - a.xact_start)::numeric, 1), 0)
) AS description
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS blocking (pid)
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = blocking.pid
ORDER BY a.xact_start
