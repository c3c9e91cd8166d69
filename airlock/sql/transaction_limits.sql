-- One row; what it does is set the limits of the transaction, $1 and $2 and $3 in milliseconds.
-- deadlock_timeout only where the role may: superusers always, from PostgreSQL 15 on also a role
-- with GRANT SET ON PARAMETER. CASE calls nothing in a branch that it does not take.
-- https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET
SELECT pg_catalog.set_config('lock_timeout', $1, true),
    pg_catalog.set_config('statement_timeout', $2, true),
    CASE
        WHEN pg_catalog.current_setting('is_superuser') = 'on'
            OR pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET') -- 15
            THEN pg_catalog.set_config('deadlock_timeout', $3, true)
    END
