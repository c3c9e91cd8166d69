-- Raises where this transaction has taken one of Airlock's tables for more than reading, or has moved
-- or dropped them; not for those named in {ours}, which we have written in it ourselves.
-- It has the path and the role of a migration, hence the written-out operators.
DO $airlock$
DECLARE
    changed pg_catalog.text := (
        SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('airlock.%I', c.relname), ', ')
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) l.relation
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
        AND n.nspname OPERATOR(pg_catalog.=) 'airlock'::pg_catalog.name
        AND c.relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,S}}'::pg_catalog."char"[])
        AND c.relname OPERATOR(pg_catalog.<>) ALL ('{{{ours}}}'::pg_catalog.name[])
        AND l.mode OPERATOR(pg_catalog.=) ANY ('{{RowExclusiveLock,ShareLock,ShareRowExclusiveLock,
            ExclusiveLock,AccessExclusiveLock}}'::pg_catalog.text[]));
BEGIN
    -- Not to_regclass: the role may have no rights on the schema.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) 'airlock'::pg_catalog.name
        AND c.relname OPERATOR(pg_catalog.=) 'deploy'::pg_catalog.name
    ) THEN
        changed := 'schema airlock';
    END IF;
    IF changed IS NOT NULL THEN
        RAISE EXCEPTION 'it changes %, which only Airlock does', changed
            USING ERRCODE = '{state}', HINT = 'Nothing of this transaction stays. Take out what changes it, be it in a function or a trigger; SELECT and GRANT SELECT are allowed.';
    END IF;
END $airlock$;
