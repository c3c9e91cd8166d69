-- One row, none where there is no such database: what the role that makes databases may do with it.
-- https://www.postgresql.org/docs/current/sql-alterdatabase.html (RENAME needs ownership, CREATEDB)
SELECT
    d.oid::bigint AS oid,
    (SELECT s.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() AS s) AS system,
    r.rolname::pg_catalog.text AS role,
    r.rolsuper OR (r.rolcreatedb AND pg_catalog.pg_has_role(d.datdba, 'MEMBER')) AS may_rename
FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
WHERE d.datname = $1 AND r.rolname = current_user
