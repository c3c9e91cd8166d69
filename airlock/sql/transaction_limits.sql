-- The limits of a transaction, in milliseconds.
-- synchronous_commit: the ledger's row is lost together with the migration or not at all, and the
-- next write to the ledger (applied, rolled back) waits for the disk for both.
SET LOCAL lock_timeout = {lock_ms};
SET LOCAL statement_timeout = {statement_ms};
SET LOCAL synchronous_commit = off;
