-- Migration 002: wide quantities of old trades
-- Purpose: the old rows get theirs, some thousand at a time
-- Author: bench
-- Date: 2026-01-01
-- Airlock: backfill table=trades key=id batch=5000

UPDATE trades SET quantity_wide = quantity WHERE quantity_wide IS NULL;

-- ROLLBACK NOTES
-- Nothing to undo: the column goes with the migration before.
