-- The ledger, version 2: approvals, refreshes, and alerts with a delivery for each channel.
ALTER TABLE airlock.deploy
    ADD COLUMN kind pg_catalog.text NOT NULL DEFAULT 'deploy' CHECK (kind IN ('deploy', 'refresh')),
    ADD COLUMN flow_run pg_catalog.text,
    ADD COLUMN run_url pg_catalog.text,
    ADD COLUMN approval pg_catalog.jsonb,
    ADD COLUMN refresh pg_catalog.jsonb,
    ADD COLUMN aftermath pg_catalog.jsonb;
COMMENT ON COLUMN airlock.deploy.kind IS 'A refresh replaces the whole database by a masked copy of another one';
COMMENT ON COLUMN airlock.deploy.run_url IS 'Where the run can be looked at';
COMMENT ON COLUMN airlock.deploy.approval IS 'Why a person was asked, and what they decided';
COMMENT ON COLUMN airlock.deploy.refresh IS 'Names of the databases that a refresh builds and keeps: what its undo needs';
COMMENT ON COLUMN airlock.deploy.aftermath IS 'After the way back: what was started again, and how the service was';

-- A refresh brings its own migrations; those of the database before it no longer stand anywhere.
ALTER TABLE airlock.migration
    DROP CONSTRAINT migration_state_check,
    ADD CONSTRAINT migration_state_check
        CHECK (state IN ('started', 'applied', 'rolled_back', 'adopted', 'replaced'));
DROP INDEX airlock.migration_current;
CREATE UNIQUE INDEX migration_current ON airlock.migration (version)
    WHERE state NOT IN ('rolled_back', 'replaced');

-- An alert about drift belongs to no deploy.
ALTER TABLE airlock.alert ALTER COLUMN deploy DROP NOT NULL;
CREATE TABLE airlock.delivery (
    alert bigint NOT NULL REFERENCES airlock.alert ON DELETE CASCADE,
    channel pg_catalog.text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_error pg_catalog.text,
    refused boolean NOT NULL DEFAULT false,
    tried_at pg_catalog.timestamptz,
    delivered_at pg_catalog.timestamptz,
    PRIMARY KEY (alert, channel)
);
COMMENT ON TABLE airlock.delivery IS 'One row per alert and channel that it is for';
COMMENT ON COLUMN airlock.delivery.refused IS 'The channel said that it will not take this alert: it holds up no later one';
-- What was delivered until now was emitted as an event in the same call.
INSERT INTO airlock.delivery (alert, channel, delivered_at)
SELECT id, 'events', delivered_at FROM airlock.alert WHERE delivered_at IS NOT NULL;
ALTER TABLE airlock.alert DROP COLUMN attempts, DROP COLUMN last_error;
COMMENT ON COLUMN airlock.alert.delivered_at IS 'When the last of its channels had taken it';

INSERT INTO airlock.ledger (version) VALUES (2);
