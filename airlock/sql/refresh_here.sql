-- One row: the database that this connection is in, its server, and the role that asks.
-- https://www.postgresql.org/docs/current/functions-info.html (pg_control_system)
SELECT
    d.oid::bigint AS oid,
    (SELECT s.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() AS s) AS system,
    current_user::pg_catalog.text AS role,
    pg_catalog.pg_has_role(d.datdba, 'USAGE') AS owns,
    d.datconnlimit AS connection_limit
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database()
