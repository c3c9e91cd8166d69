-- One row: what a backup must know about the server, the database and the role asking.
-- https://www.postgresql.org/docs/current/functions-info.html (pg_control_system, pg_database_size)
SELECT
    pg_catalog.current_setting('server_version') AS server_version,
    pg_catalog.current_setting('server_version_num')::int / 10000 AS server_major,
    (SELECT s.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() AS s) AS system_identifier,
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
         ELSE pg_catalog.pg_current_wal_lsn() END::pg_catalog.text AS wal_lsn,
    current_user::pg_catalog.text AS role,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    r.rolsuper AS is_superuser,
    r.rolreplication AS is_replication,
    pg_catalog.current_setting('wal_level') AS wal_level,
    pg_catalog.current_setting('max_wal_senders')::int AS max_wal_senders,
    coalesce(pg_catalog.current_setting('ssl_library', true), '') AS ssl_library,
    (SELECT pg_catalog.array_agg(t.spcname::pg_catalog.text ORDER BY t.spcname)
       FROM pg_catalog.pg_tablespace AS t
      WHERE t.spcname NOT IN ('pg_default', 'pg_global')) AS tablespaces,
    (SELECT pg_catalog.sum(pg_catalog.pg_database_size(d.oid))::bigint
       FROM pg_catalog.pg_database AS d
      WHERE pg_catalog.has_database_privilege(d.oid, 'CONNECT')) AS cluster_bytes,
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS database_bytes,
    (SELECT s.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS s WHERE s.oid = 10) AS bootstrap_superuser,
    (SELECT pg_catalog.array_agg(e.extname::pg_catalog.text ORDER BY e.extname)
       FROM pg_catalog.pg_extension AS e) AS extensions
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
