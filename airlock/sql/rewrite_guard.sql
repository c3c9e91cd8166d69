-- For one transaction: a table is rewritten only if the rehearsal saw that, or if this deploy has made
-- it, which its row for the column ctid tells: that one is never written again.
-- The owner's rights are for the ledger, which a role that the file took may not read.
-- https://www.postgresql.org/docs/current/event-trigger-table-rewrite-example.html
CREATE OR REPLACE FUNCTION airlock.refuse_rewrite() RETURNS pg_catalog.event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $airlock$
DECLARE
    name text;
    bytes bigint;
    made xid;
    begun_age integer;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid), a.xmin
      INTO name, bytes, made
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = -1
     WHERE c.oid = pg_event_trigger_table_rewrite_oid();
    SELECT greatest(age(pg_current_xact_id()::xid),
                    max(age((m.applied_xid % 4294967296)::text::xid)))
      INTO begun_age
      FROM airlock.migration AS m
     WHERE m.deploy = {deploy} AND m.state IN ('started', 'applied');
    IF {rewritten}::jsonb ? name OR age(made) <= begun_age THEN
        RETURN;
    END IF;
    RAISE EXCEPTION 'this would rewrite %, % bytes, and the rehearsal saw no rewrite of it; stopped before it began',
        name, bytes
        USING HINT = 'Something here is not as in the snapshot that was rehearsed, such as a function that a default calls. Run the deploy again: it is rehearsed on a new snapshot then.';
END $airlock$;
CREATE EVENT TRIGGER airlock_rewrite ON table_rewrite EXECUTE FUNCTION airlock.refuse_rewrite();
