-- Migration 002: references of old trades
-- Purpose: the old rows get theirs, some thousand at a time
-- Author: bench
-- Date: 2026-01-01
-- Airlock: backfill table=trades key=id batch=5000

UPDATE trades SET reference = gen_random_uuid() WHERE reference IS NULL;

-- ROLLBACK NOTES
-- Nothing to undo: the column goes with the migration before.
