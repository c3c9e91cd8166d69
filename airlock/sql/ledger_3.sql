-- The ledger, version 3: migrations of the contract, applied after the new release is healthy;
-- backfills; what clients felt.
ALTER TABLE airlock.deploy
    DROP CONSTRAINT deploy_state_check,
    ADD CONSTRAINT deploy_state_check CHECK (state IN (
        'planned', 'snapshotted', 'rehearsed', 'approved', 'applying', 'applied', 'verified',
        'restarted', 'healthy', 'contracting', 'contracted', 'succeeded', 'failed',
        'rolling_back', 'rolled_back', 'stranded'));

-- ---- backfills: how far each came
CREATE TABLE airlock.backfill (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    version bigint NOT NULL,
    direction pg_catalog.text NOT NULL CHECK (direction IN ('forward', 'reverse')),
    upper_key pg_catalog.text,
    last_key pg_catalog.text,
    changed_rows bigint NOT NULL DEFAULT 0,
    walked_rows bigint NOT NULL DEFAULT 0,
    expected_rows bigint NOT NULL,
    batches bigint NOT NULL DEFAULT 0,
    began_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    batch_at pg_catalog.timestamptz,
    PRIMARY KEY (deploy, version, direction)
);
COMMENT ON TABLE airlock.backfill IS 'One row per backfill, deploy and direction; each batch commits its progress with its rows';
COMMENT ON COLUMN airlock.backfill.upper_key IS 'The last key to do, as text; NULL where there is nothing to do';
COMMENT ON COLUMN airlock.backfill.last_key IS 'The last key that is done, as text';
CREATE TABLE airlock.backfill_batch (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    version bigint NOT NULL,
    xid bigint NOT NULL,
    PRIMARY KEY (deploy, version, xid)
);
COMMENT ON TABLE airlock.backfill_batch IS 'Transactions of backfills: what only they wrote into a column need not be kept when it goes';
-- ---- end of backfills

-- ---- what clients felt
CREATE TABLE airlock.client (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    fence bigint NOT NULL,
    part pg_catalog.jsonb NOT NULL,
    PRIMARY KEY (deploy, fence)
);
COMMENT ON TABLE airlock.client IS 'One row per probe: what it saw beside one runner of a deploy, in short';
CREATE TABLE airlock.client_row (n bigint NOT NULL);
COMMENT ON TABLE airlock.client_row IS 'The one row that the probe reads and writes, and nobody else';
-- Without a key that never changes, a table in a publication of all tables could not be written.
ALTER TABLE airlock.client_row REPLICA IDENTITY FULL;
INSERT INTO airlock.client_row (n) VALUES (0);

INSERT INTO airlock.ledger (version) VALUES (3);
