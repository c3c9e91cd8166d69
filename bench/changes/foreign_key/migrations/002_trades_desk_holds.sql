-- Migration 002: desks of old trades
-- Purpose: the old rows are read beside the writes
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades VALIDATE CONSTRAINT trades_desk;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP CONSTRAINT trades_desk;
-- ALTER TABLE trades ADD CONSTRAINT trades_desk FOREIGN KEY (desk_id) REFERENCES desks (id) NOT VALID;
