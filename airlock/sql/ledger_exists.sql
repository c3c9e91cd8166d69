-- One row: whether the ledger's first table is there, and whether any other of its tables is.
SELECT pg_catalog.to_regclass('airlock.deploy') IS NOT NULL AS has_deploys, EXISTS (
    SELECT FROM pg_catalog.unnest(ARRAY['ledger', 'migration', 'event', 'alert', 'catalogue']) AS t
    WHERE pg_catalog.to_regclass('airlock.' || t) IS NOT NULL
) AS has_others
