-- One row; what it does is set the limits of the transaction, in milliseconds.
-- deadlock_timeout: an autovacuum worker gives way after it, so a lock_timeout below it never gets
-- past one. Only where the role may: superusers always, from PostgreSQL 15 on also a role with
-- GRANT SET ON PARAMETER. CASE calls nothing in a branch that it does not take.
-- synchronous_commit: the ledger's row is lost together with the migration or not at all, and the
-- next write to the ledger (applied, rolled back) waits for the disk for both.
-- https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET
SELECT pg_catalog.set_config('lock_timeout', '{lock_ms}', true),
    pg_catalog.set_config('statement_timeout', '{statement_ms}', true),
    pg_catalog.set_config('synchronous_commit', 'off', true),
    CASE
        WHEN pg_catalog.current_setting('is_superuser') = 'on'
            OR pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET') -- 15
            THEN pg_catalog.set_config('deadlock_timeout', '{deadlock_ms}', true)
    END
