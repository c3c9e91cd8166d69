-- A row is one role that something in the current database is granted to, or that a policy names.
-- Owners are not among them: in the copy everything belongs to one role.
-- https://www.postgresql.org/docs/current/catalog-pg-shdepend.html (deptype)
SELECT DISTINCT r.rolname::pg_catalog.text AS name
FROM pg_catalog.pg_shdepend AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND s.deptype IN ('a', 'r')
  AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
  AND r.rolname !~ '^pg_'
ORDER BY 1
