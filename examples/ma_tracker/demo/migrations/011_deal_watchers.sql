-- Migration 011: Deal Watchers
-- Purpose: Who follows a deal, and how many do
-- Author: M&A Tracker team
-- Date: 2025-10-06

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Tables
CREATE TABLE deal_watchers (
    deal_id UUID NOT NULL,
    email VARCHAR(255) NOT NULL,
    since TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    PRIMARY KEY (deal_id, email)
);

-- 2. Columns on existing tables
ALTER TABLE deals
    ADD COLUMN watcher_count INTEGER NOT NULL DEFAULT 0;

-- 3. Foreign keys
ALTER TABLE deal_watchers
    ADD CONSTRAINT fk_deal_watchers_deal
    FOREIGN KEY (deal_id) REFERENCES deals (id)
    ON DELETE CASCADE;

-- 4. Comments
COMMENT ON TABLE deal_watchers IS 'Who follows which deal';
COMMENT ON COLUMN deal_watchers.deal_id IS 'Deal that is followed';
COMMENT ON COLUMN deal_watchers.email IS 'Who follows it';
COMMENT ON COLUMN deal_watchers.since IS 'When that began';

COMMENT ON COLUMN deals.watcher_count IS 'How many follow the deal';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP TABLE deal_watchers;
--
-- (deals.watcher_count was forgotten here. The rehearsal finds it; the demo's third act is that.)
