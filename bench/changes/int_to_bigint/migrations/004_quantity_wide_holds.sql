-- Migration 004: wide quantities of old trades are there
-- Purpose: the old rows are read beside the writes
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades VALIDATE CONSTRAINT trades_wide;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP CONSTRAINT trades_wide;
-- ALTER TABLE trades ADD CONSTRAINT trades_wide CHECK (quantity_wide IS NOT NULL) NOT VALID;
