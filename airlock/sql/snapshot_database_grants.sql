-- A row is one privilege on the current database; an empty grantee is PUBLIC.
-- https://www.postgresql.org/docs/current/functions-info.html (aclexplode)
SELECT
    CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END AS grantee,
    a.privilege_type::pg_catalog.text AS privilege,
    a.is_grantable AS grantable
FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
WHERE d.datname = pg_catalog.current_database()
ORDER BY 1, 2, 3
