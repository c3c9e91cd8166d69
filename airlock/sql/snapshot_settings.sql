-- A row is one "name=value" of ALTER DATABASE … SET or ALTER ROLE … SET; an empty role is every
-- role, in_database tells whether it holds in the current database only.
-- https://www.postgresql.org/docs/current/catalog-pg-db-role-setting.html
SELECT
    coalesce(r.rolname::pg_catalog.text, '') AS role,
    s.setdatabase <> 0 AS in_database,
    c.setting
FROM pg_catalog.pg_db_role_setting AS s
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) WITH ORDINALITY AS c (setting, position)
WHERE s.setdatabase IN
      (0, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
  AND (s.setrole = 0 OR r.oid IS NOT NULL)
ORDER BY 1, 2, c.position
