-- Whether this role may lower deadlock_timeout: superusers always, from PostgreSQL 15 on also a role
-- with GRANT SET ON PARAMETER.
SELECT pg_catalog.current_setting('is_superuser') = 'on'
    OR pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET') -- 15
