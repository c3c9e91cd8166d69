-- Migration 001: a wide quantity beside the narrow one
-- Purpose: what is written goes into both
-- Author: bench
-- Date: 2026-01-01

CREATE FUNCTION trades_widen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.quantity_wide := NEW.quantity;
    RETURN NEW;
END $$;
ALTER TABLE trades ADD COLUMN quantity_wide bigint;
CREATE TRIGGER trades_widen BEFORE INSERT OR UPDATE ON trades
    FOR EACH ROW EXECUTE FUNCTION trades_widen();

-- ROLLBACK NOTES
-- DROP TRIGGER trades_widen ON trades;
-- ALTER TABLE trades DROP COLUMN quantity_wide;
-- DROP FUNCTION trades_widen();
