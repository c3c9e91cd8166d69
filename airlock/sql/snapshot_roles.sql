-- A row is one role of the cluster with its attributes, without its password.
-- https://www.postgresql.org/docs/current/view-pg-roles.html
SELECT
    r.rolname::pg_catalog.text AS name,
    r.rolsuper AS superuser,
    r.rolinherit AS inherit,
    r.rolcreaterole AS createrole,
    r.rolcreatedb AS createdb,
    r.rolcanlogin AS login,
    r.rolreplication AS replication,
    r.rolbypassrls AS bypassrls
FROM pg_catalog.pg_roles AS r
WHERE r.rolname !~ '^pg_'
ORDER BY r.rolname
