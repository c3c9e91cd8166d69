-- A row is one role that objects of the current database belong to or have been granted to.
-- https://www.postgresql.org/docs/current/catalog-pg-shdepend.html
SELECT DISTINCT r.rolname::pg_catalog.text AS name
FROM pg_catalog.pg_shdepend AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
  AND r.rolname !~ '^pg_'
ORDER BY 1
