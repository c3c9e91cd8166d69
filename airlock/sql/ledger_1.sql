-- The ledger, version 1: what was done to this database, in the database itself.
-- docs/decisions/0001-ledger-in-the-target.md
CREATE SCHEMA airlock;
COMMENT ON SCHEMA airlock IS 'Airlock''s ledger: the only truth about what was deployed here';

CREATE TABLE airlock.ledger (
    version integer PRIMARY KEY,
    upgraded_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE airlock.ledger IS 'Versions of the ledger''s own tables';

-- Each holder of a deploy draws a number; a higher one shuts the earlier holders out.
CREATE SEQUENCE airlock.fence;

CREATE TABLE airlock.catalogue (
    fingerprint pg_catalog.text PRIMARY KEY,
    objects pg_catalog.text NOT NULL,
    read_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE airlock.catalogue IS 'Schemas as data, by fingerprint';

CREATE TABLE airlock.deploy (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target pg_catalog.text NOT NULL,
    requester pg_catalog.text NOT NULL,
    reason pg_catalog.text NOT NULL,
    request pg_catalog.jsonb NOT NULL,
    state pg_catalog.text NOT NULL DEFAULT 'planned' CHECK (state IN (
        'planned', 'snapshotted', 'rehearsed', 'approved', 'applying', 'applied', 'verified',
        'restarted', 'healthy', 'succeeded', 'failed', 'rolling_back', 'rolled_back', 'stranded')),
    plan pg_catalog.jsonb,
    schema_before pg_catalog.text REFERENCES airlock.catalogue,
    schema_expected pg_catalog.text REFERENCES airlock.catalogue,
    schema_after pg_catalog.text REFERENCES airlock.catalogue,
    guard_after pg_catalog.text,
    snapshot pg_catalog.jsonb,
    rehearsal pg_catalog.jsonb,
    release pg_catalog.jsonb,
    previous pg_catalog.jsonb,
    restart pg_catalog.jsonb,
    health pg_catalog.jsonb,
    holder pg_catalog.text NOT NULL,
    fence bigint NOT NULL,
    heartbeat_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at pg_catalog.timestamptz,
    failed_step pg_catalog.text,
    failure pg_catalog.text,
    -- A stranded deploy stays open: nothing else may run until a person has dealt with it.
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'rolled_back')))
);
COMMENT ON TABLE airlock.deploy IS 'One row per run of the pipeline against this database';
COMMENT ON COLUMN airlock.deploy.guard_after IS 'While the cheap guard reads so, the schema is still schema_after';
COMMENT ON COLUMN airlock.deploy.previous IS 'Instance and release that served before: what an undo starts again';
-- One open deploy per database, whatever the clients believe about locks.
CREATE UNIQUE INDEX deploy_open ON airlock.deploy ((true)) WHERE finished_at IS NULL;

CREATE TABLE airlock.migration (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    version bigint NOT NULL,
    name pg_catalog.text NOT NULL,
    checksum pg_catalog.text NOT NULL,
    forward_sql pg_catalog.text NOT NULL,
    reverse_sql pg_catalog.text NOT NULL,
    state pg_catalog.text NOT NULL CHECK (state IN ('started', 'applied', 'rolled_back', 'adopted')),
    position integer NOT NULL,
    segments_done integer NOT NULL,
    applied_xid bigint NOT NULL,
    oldest_xid bigint NOT NULL,
    reverse_segments_done integer NOT NULL DEFAULT 0,
    started_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    applied_at pg_catalog.timestamptz,
    rolled_back_at pg_catalog.timestamptz,
    PRIMARY KEY (deploy, version)
);
COMMENT ON TABLE airlock.migration IS 'One row per migration and deploy, forward and reverse SQL as applied';
COMMENT ON COLUMN airlock.migration.applied_xid IS 'Transaction of its first segment';
COMMENT ON COLUMN airlock.migration.oldest_xid IS 'Oldest transaction that ran then: whatever was written since is not older';
CREATE UNIQUE INDEX migration_current ON airlock.migration (version) WHERE state <> 'rolled_back';

CREATE TABLE airlock.event (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    fence bigint NOT NULL,
    step pg_catalog.text NOT NULL,
    phase pg_catalog.text NOT NULL CHECK (phase IN ('intent', 'done', 'failed')),
    detail pg_catalog.text NOT NULL
);
COMMENT ON TABLE airlock.event IS 'Append-only journal: what was meant, what came of it';
CREATE INDEX event_deploy ON airlock.event (deploy, sequence);

CREATE TABLE airlock.alert (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    dedup_key pg_catalog.text NOT NULL UNIQUE,
    body pg_catalog.jsonb NOT NULL,
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    last_error pg_catalog.text,
    delivered_at pg_catalog.timestamptz
);
COMMENT ON TABLE airlock.alert IS 'Outbox: alerts to deliver, delivered at least once';

CREATE TABLE airlock.kept (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    version bigint NOT NULL,
    relation pg_catalog.text NOT NULL,
    row_data pg_catalog.jsonb NOT NULL,
    kept_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE airlock.kept IS 'Rows and values that a rollback would have dropped';

INSERT INTO airlock.ledger (version) VALUES (1);
