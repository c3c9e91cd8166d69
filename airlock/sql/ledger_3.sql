-- The ledger, version 3: what clients felt.
CREATE TABLE airlock.client (
    deploy bigint NOT NULL REFERENCES airlock.deploy,
    fence bigint NOT NULL,
    part jsonb NOT NULL,
    PRIMARY KEY (deploy, fence)
);
COMMENT ON TABLE airlock.client IS 'One row per probe: what it saw beside one runner of a deploy, in short';
CREATE TABLE airlock.client_row (n bigint NOT NULL);
COMMENT ON TABLE airlock.client_row IS 'The one row that the probe reads and writes, and nobody else';
INSERT INTO airlock.client_row (n) VALUES (0);

INSERT INTO airlock.ledger (version) VALUES (3);
