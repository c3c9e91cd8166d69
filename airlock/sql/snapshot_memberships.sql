-- A row is one membership of a role in another. The options inherit and set came with version 16.
-- https://www.postgresql.org/docs/current/catalog-pg-auth-members.html
SELECT
    pg_catalog.pg_get_userbyid(m.roleid)::pg_catalog.text AS role,
    pg_catalog.pg_get_userbyid(m.member)::pg_catalog.text AS member,
    pg_catalog.bool_or(m.admin_option) AS admin,
    pg_catalog.bool_or((pg_catalog.to_jsonb(m) ->> 'inherit_option')::pg_catalog.bool) AS inherit,
    pg_catalog.bool_or((pg_catalog.to_jsonb(m) ->> 'set_option')::pg_catalog.bool) AS "set"
FROM pg_catalog.pg_auth_members AS m
WHERE pg_catalog.pg_get_userbyid(m.member) !~ '^pg_'
GROUP BY 1, 2
ORDER BY 1, 2
