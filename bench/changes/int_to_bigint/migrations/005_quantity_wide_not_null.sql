-- Migration 005: quantity_wide is NOT NULL
-- Purpose: the check proves it, so no row is read again
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ALTER COLUMN quantity_wide SET NOT NULL;
ALTER TABLE trades DROP CONSTRAINT trades_wide;

-- ROLLBACK NOTES
-- ALTER TABLE trades ADD CONSTRAINT trades_wide CHECK (quantity_wide IS NOT NULL) NOT VALID;
-- ALTER TABLE trades ALTER COLUMN quantity_wide DROP NOT NULL;
