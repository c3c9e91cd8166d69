-- One row per session and relation on which it may keep a plan waiting: it holds a lock that
-- conflicts with what the plan will take there, or its transaction is old and may come to hold one
-- (relation is NULL then). $1, $2: relations, and beside each a mode that conflicts. $3, $4: from how
-- many seconds on a transaction is long where it holds such a lock, and old where it does not.
-- What this role may not see is NULL. Not the query: that may hold data.
-- https://www.postgresql.org/docs/current/monitoring-stats.html (pg_stat_activity)
WITH sessions AS (
    SELECT a.pid, a.usename, a.application_name, a.state, a.datid, a.query,
        EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start) AS open_s,
        COALESCE(a.backend_type,
            CASE WHEN a.usesysid IS NULL THEN 'autovacuum worker' ELSE 'client backend' END) AS kind
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
      AND a.application_name !~ '^airlock( |$)'
),
tables AS (
    SELECT pg_catalog.count(*) AS count
    FROM pg_catalog.pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
),
held AS (
    SELECT s.pid, wanted.relation,
        -- Indexes and parents of partitions have no age: theirs is the greatest there is.
        pg_catalog.bool_or(s.kind = 'autovacuum worker' AND (
            s.query LIKE '%(to prevent wraparound)'
            OR c.relfrozenxid <> '0' AND pg_catalog.age(c.relfrozenxid)
                > pg_catalog.current_setting('autovacuum_freeze_max_age')::integer
            OR c.relminmxid <> '0' AND pg_catalog.mxid_age(c.relminmxid)
                > pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::integer
        )) AS is_wraparound
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
        AS wanted (relation, mode)
    JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(wanted.relation)
    JOIN pg_catalog.pg_locks AS l
      ON l.locktype = 'relation' AND l.granted AND l.relation = c.oid AND l.mode = wanted.mode
    JOIN sessions AS s ON s.pid = l.pid AND s.datid = l.database
    GROUP BY s.pid, wanted.relation
),
found AS (
    SELECT s.*, h.relation, COALESCE(h.is_wraparound, false) AS is_wraparound,
        h.relation IS NOT NULL AND (
            s.application_name ~ '^pg_dump'
            -- Another name, and a lock on as good as every table since its transaction began.
            OR (SELECT pg_catalog.count(DISTINCT l.relation) FROM pg_catalog.pg_locks AS l
                JOIN pg_catalog.pg_class AS c ON c.oid = l.relation AND c.relkind IN ('r', 'p')
                WHERE l.pid = s.pid AND l.locktype = 'relation' AND l.granted
                  AND l.mode = 'AccessShareLock' AND l.relation >= 16384)
               >= GREATEST(10, (SELECT t.count FROM tables AS t) * 0.8)
        ) AS is_dump
    FROM sessions AS s
    LEFT JOIN held AS h ON h.pid = s.pid
)
SELECT f.pid, f.relation, f.is_wraparound, f.is_dump,
    pg_catalog.format('process %s (%s, %s, %s, transaction open for %s s)',
        f.pid,
        COALESCE(f.usename, f.kind),
        COALESCE(NULLIF(f.application_name, ''), f.kind),
        COALESCE(f.state,
            CASE WHEN f.kind = 'client backend' THEN 'state hidden' ELSE 'active' END),
        COALESCE(pg_catalog.round(f.open_s, 1)::pg_catalog.text, '?')
    ) AS description
FROM found AS f
WHERE f.is_wraparound OR f.is_dump
   OR (f.relation IS NOT NULL AND COALESCE(f.open_s >= $3, f.kind <> 'autovacuum worker'))
   OR f.open_s >= $4
ORDER BY f.pid, f.relation
