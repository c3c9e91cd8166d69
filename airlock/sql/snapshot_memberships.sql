-- A row is one membership of a role in another. The options inherit and set came with version 16.
-- https://www.postgresql.org/docs/current/catalog-pg-auth-members.html
SELECT
    pg_catalog.pg_get_userbyid(m.roleid)::text AS role,
    pg_catalog.pg_get_userbyid(m.member)::text AS member,
    bool_or(m.admin_option) AS admin,
    bool_or((pg_catalog.to_jsonb(m) ->> 'inherit_option')::bool) AS inherit,
    bool_or((pg_catalog.to_jsonb(m) ->> 'set_option')::bool) AS "set"
FROM pg_catalog.pg_auth_members AS m
WHERE pg_catalog.pg_get_userbyid(m.member) !~ '^pg_'
GROUP BY 1, 2
ORDER BY 1, 2
