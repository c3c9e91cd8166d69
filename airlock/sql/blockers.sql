-- One row per session that keeps session $1 waiting: who it is, and what is known of it. Not its
-- query: that may hold data. What this role may not see is NULL, and then an autovacuum worker is
-- who has no role; that it works against wraparound is told by the age of its table.
-- transaction: the same text as long as it is the same one, also where its times are hidden. idle_since: NULL while it runs something.
-- https://www.postgresql.org/docs/current/functions-info.html (pg_blocking_pids)
WITH known AS (
    SELECT a.pid, a.usename, a.application_name, a.state, a.xact_start,
        COALESCE(a.backend_type,
            CASE WHEN a.usesysid IS NULL THEN 'autovacuum worker' ELSE 'client backend' END) AS kind,
        pg_catalog.format('%s %s %s', a.pid, a.backend_start, (
            SELECT l.virtualxid FROM pg_catalog.pg_locks AS l
            WHERE l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'
        )) AS transaction,
        CASE WHEN a.state = 'idle in transaction' THEN a.state_change END AS idle_since,
        a.query LIKE '%(to prevent wraparound)' OR EXISTS (
            SELECT FROM pg_catalog.pg_locks AS l
            JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
            WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock'
              AND l.database = a.datid
              -- Indexes have no age: theirs is the greatest there is.
              AND (c.relfrozenxid <> '0' AND pg_catalog.age(c.relfrozenxid)
                      > pg_catalog.current_setting('autovacuum_freeze_max_age')::integer
                   OR c.relminmxid <> '0' AND pg_catalog.mxid_age(c.relminmxid)
                      > pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::integer)
        ) AS is_aged
    FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS blocking (pid)
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = blocking.pid
)
SELECT k.pid, k.transaction, k.idle_since,
    k.kind = 'autovacuum worker' AND k.is_aged AS is_wraparound,
    k.kind = 'autovacuum worker' AND NOT k.is_aged AS gives_way,
    k.application_name ~ '^airlock( |$)' AS is_ours,
    k.kind = 'walsender' OR k.application_name ~ '^pg_dump' AS is_backup,
    pg_catalog.format('process %s (%s, %s, %s, transaction open for %s s)',
        k.pid,
        COALESCE(k.usename, k.kind),
        COALESCE(NULLIF(k.application_name, ''), k.kind),
        CASE WHEN k.kind = 'autovacuum worker' AND k.is_aged THEN 'to prevent wraparound'
            ELSE COALESCE(k.state,
                CASE WHEN k.kind = 'client backend' THEN 'state hidden' ELSE 'active' END) END,
        COALESCE(pg_catalog.round(
            EXTRACT(epoch FROM pg_catalog.now() - k.xact_start)::numeric, 1)::pg_catalog.text, '?')
    ) AS description
FROM known AS k
ORDER BY k.xact_start, k.pid
