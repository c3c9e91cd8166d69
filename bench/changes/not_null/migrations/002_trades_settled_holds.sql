-- Migration 002: old trades are settled
-- Purpose: the old rows are read beside the writes
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades VALIDATE CONSTRAINT trades_settled;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP CONSTRAINT trades_settled;
-- ALTER TABLE trades ADD CONSTRAINT trades_settled CHECK (settled_on IS NOT NULL) NOT VALID;
