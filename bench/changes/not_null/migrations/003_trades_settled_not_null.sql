-- Migration 003: settled_on is NOT NULL
-- Purpose: the check proves it, so no row is read again
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ALTER COLUMN settled_on SET NOT NULL;
ALTER TABLE trades DROP CONSTRAINT trades_settled;

-- ROLLBACK NOTES
-- ALTER TABLE trades ADD CONSTRAINT trades_settled CHECK (settled_on IS NOT NULL) NOT VALID;
-- ALTER TABLE trades ALTER COLUMN settled_on DROP NOT NULL;
