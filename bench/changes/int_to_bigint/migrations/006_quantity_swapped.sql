-- Migration 006: quantity is the wide one
-- Purpose: the names change places; no row is read or written
-- Author: bench
-- Date: 2026-01-01

DROP TRIGGER trades_widen ON trades;
ALTER TABLE trades ALTER COLUMN quantity DROP NOT NULL;
ALTER TABLE trades RENAME COLUMN quantity TO quantity_narrow;
ALTER TABLE trades RENAME COLUMN quantity_wide TO quantity;

-- ROLLBACK NOTES
-- ALTER TABLE trades RENAME COLUMN quantity TO quantity_wide;
-- ALTER TABLE trades RENAME COLUMN quantity_narrow TO quantity;
-- UPDATE trades SET quantity = quantity_wide WHERE quantity IS NULL;
-- ALTER TABLE trades ALTER COLUMN quantity SET NOT NULL;
-- CREATE TRIGGER trades_widen BEFORE INSERT OR UPDATE ON trades
--     FOR EACH ROW EXECUTE FUNCTION trades_widen();
