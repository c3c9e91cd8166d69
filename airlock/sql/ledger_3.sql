-- The ledger, version 3: migrations of the contract, applied after the new release is healthy.
ALTER TABLE airlock.deploy
    DROP CONSTRAINT deploy_state_check,
    ADD CONSTRAINT deploy_state_check CHECK (state IN (
        'planned', 'snapshotted', 'rehearsed', 'approved', 'applying', 'applied', 'verified',
        'restarted', 'healthy', 'contracting', 'contracted', 'succeeded', 'failed',
        'rolling_back', 'rolled_back', 'stranded'));

INSERT INTO airlock.ledger (version) VALUES (3);
