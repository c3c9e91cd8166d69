-- Migration 001: trades are settled
-- Purpose: new rows obey at once; the old ones are not looked at
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ADD CONSTRAINT trades_settled CHECK (settled_on IS NOT NULL) NOT VALID;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP CONSTRAINT trades_settled;
