-- Migration 001: desks of trades
-- Purpose: new rows obey at once; the old ones are not looked at
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ADD CONSTRAINT trades_desk FOREIGN KEY (desk_id) REFERENCES desks (id) NOT VALID;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP CONSTRAINT trades_desk;
