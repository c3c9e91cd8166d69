-- One boolean: may this role change deadlock_timeout? Superusers always; from PostgreSQL 15 on
-- also a role with GRANT SET ON PARAMETER deadlock_timeout.
SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')
