-- One row about standbys and subscribers: how many this role may not look at, how far the slowest
-- has replayed and how far we have written, in bytes, and the longest lag as they say it themselves.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW
SELECT pg_catalog.count(*) FILTER (WHERE r.state IS NULL) AS hidden,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.min(r.replay_lsn), '0/0') AS replayed,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0') AS written,
    extract(epoch FROM pg_catalog.max(r.replay_lag))::double precision AS said_s
FROM pg_catalog.pg_stat_replication AS r
WHERE r.state IS NULL OR r.state IN ('streaming', 'catchup')
