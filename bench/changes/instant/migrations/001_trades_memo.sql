-- Migration 001: memos
-- Purpose: a column without a default: only the catalogue changes
-- Author: bench
-- Date: 2026-01-01

ALTER TABLE trades ADD COLUMN memo text;

-- ROLLBACK NOTES
-- ALTER TABLE trades DROP COLUMN memo;
