-- Migration 007: the narrow quantity goes
-- Purpose: nobody reads it any more
-- Author: bench
-- Date: 2026-01-01

DROP FUNCTION trades_widen();
ALTER TABLE trades DROP COLUMN quantity_narrow;

-- ROLLBACK NOTES
-- ALTER TABLE trades ADD COLUMN quantity_narrow integer;
-- UPDATE trades SET quantity_narrow = quantity;
-- CREATE FUNCTION trades_widen() RETURNS trigger LANGUAGE plpgsql AS $$
-- BEGIN
--     NEW.quantity_wide := NEW.quantity;
--     RETURN NEW;
-- END $$;
