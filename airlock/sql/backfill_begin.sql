-- The row of one backfill before its first batch. $4 is the last key to do; $5 is about how many rows
-- lie before it.
INSERT INTO airlock.backfill (deploy, version, direction, upper_key, expected_rows)
VALUES ($1, $2, $3, $4, $5)
