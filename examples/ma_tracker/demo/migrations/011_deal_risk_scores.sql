-- Migration 011: Deal Risk Scores
-- Purpose: How likely each deal is to break, scored anew as news comes in
-- Author: M&A Tracker team
-- Date: 2025-10-06

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Types
CREATE TYPE risk_level AS ENUM (
    'low',
    'elevated',
    'high'
);

COMMENT ON TYPE risk_level IS 'How likely a deal is to break, in words';

-- 2. Tables
CREATE TABLE deal_risk_scores (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    deal_id UUID NOT NULL,
    score NUMERIC(5, 4) NOT NULL,
    level risk_level NOT NULL,
    factors JSONB NOT NULL DEFAULT '{}'::jsonb,

    scored_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_deal_risk_scores_score CHECK (score BETWEEN 0 AND 1)
);

-- 3. Columns on existing tables. Nullable and without default: no row is touched.
ALTER TABLE deals
    ADD COLUMN risk_score NUMERIC(5, 4);

-- 4. Foreign keys
ALTER TABLE deal_risk_scores
    ADD CONSTRAINT fk_deal_risk_scores_deal
    FOREIGN KEY (deal_id) REFERENCES deals (id)
    ON DELETE CASCADE;

-- 5. Indexes, all on the new and empty table
CREATE INDEX idx_deal_risk_scores_deal ON deal_risk_scores (deal_id, scored_at DESC);
CREATE INDEX idx_deal_risk_scores_factors ON deal_risk_scores USING GIN (factors jsonb_path_ops);

-- 6. Comments
COMMENT ON TABLE deal_risk_scores IS 'Risk scores, one row for each time that a deal was scored';
COMMENT ON COLUMN deal_risk_scores.id IS 'Key';
COMMENT ON COLUMN deal_risk_scores.deal_id IS 'Deal that was scored';
COMMENT ON COLUMN deal_risk_scores.score IS 'Probability that the deal breaks, 0 to 1';
COMMENT ON COLUMN deal_risk_scores.level IS 'The score in words';
COMMENT ON COLUMN deal_risk_scores.factors IS 'What went into the score, and how much of it';
COMMENT ON COLUMN deal_risk_scores.scored_at IS 'When the deal was scored';

COMMENT ON COLUMN deals.risk_score IS 'The newest score; null until the deal was scored';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- ALTER TABLE deals DROP COLUMN risk_score;
-- DROP TABLE deal_risk_scores;
-- DROP TYPE risk_level;
