-- Whether the transaction that blockers.sql called $2 is still there, in server process $1.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid = $1 AND $2 = pg_catalog.format('%s %s %s %s', a.pid, a.backend_start, a.xact_start,
        CASE WHEN a.state = 'idle in transaction' THEN a.state_change END)
)
