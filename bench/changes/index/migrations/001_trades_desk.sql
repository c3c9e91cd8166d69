-- Migration 001: trades by desk
-- Purpose: an index that is built beside the writes
-- Author: bench
-- Date: 2026-01-01

CREATE INDEX CONCURRENTLY trades_desk ON trades (desk_id, settled_on);

-- ROLLBACK NOTES
-- DROP INDEX CONCURRENTLY trades_desk;
