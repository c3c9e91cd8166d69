-- Migration 001: references of trades
-- Purpose: new rows get one at once; no row is written
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ADD COLUMN reference uuid;
ALTER TABLE trades ALTER COLUMN reference SET DEFAULT gen_random_uuid();

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP COLUMN reference;
