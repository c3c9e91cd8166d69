-- Migration 001: Initial Schema
-- Purpose: Sources that we read, and the deals that we follow
-- Author: M&A Tracker team
-- Date: 2025-01-13

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Types
CREATE TYPE deal_status AS ENUM (
    'rumoured',
    'announced',
    'pending',
    'completed',
    'terminated'
);

COMMENT ON TYPE deal_status IS 'How far a deal has come, in the order in which deals usually move';

-- 2. Tables
CREATE TABLE sources (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    name VARCHAR(255) NOT NULL,
    url TEXT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    metadata JSONB NOT NULL DEFAULT '{}'::jsonb,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_sources_kind CHECK (kind IN ('news', 'filing', 'press_release', 'exchange', 'blog')),
    CONSTRAINT ck_sources_url_not_blank CHECK (btrim(url) <> '')
);

CREATE TABLE deals (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    acquirer_name VARCHAR(255) NOT NULL,
    target_name VARCHAR(255) NOT NULL,
    target_ticker VARCHAR(12),
    status deal_status NOT NULL DEFAULT 'announced',
    deal_value_usd NUMERIC(16, 2),
    offer_price NUMERIC(12, 4),
    currency VARCHAR(3) NOT NULL DEFAULT 'USD',
    announced_on DATE NOT NULL,
    expected_close_on DATE,
    details JSONB NOT NULL DEFAULT '{}'::jsonb,
    source_id UUID,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_deals_value_positive CHECK (deal_value_usd > 0),
    CONSTRAINT ck_deals_offer_price_positive CHECK (offer_price > 0),
    CONSTRAINT ck_deals_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ck_deals_close_after_announcement CHECK (expected_close_on >= announced_on)
);

-- 3. Foreign keys. A source that a deal rests on may not vanish.
ALTER TABLE deals
    ADD CONSTRAINT fk_deals_source
    FOREIGN KEY (source_id) REFERENCES sources (id)
    ON DELETE RESTRICT;

-- 4. Indexes
CREATE INDEX idx_sources_kind ON sources (kind);
CREATE INDEX idx_deals_status ON deals (status);
CREATE INDEX idx_deals_created_at ON deals (created_at DESC);
CREATE INDEX idx_deals_target_ticker ON deals (target_ticker);
CREATE INDEX idx_deals_source_id ON deals (source_id);
CREATE INDEX idx_deals_details ON deals USING GIN (details jsonb_path_ops);

-- 5. Views
CREATE VIEW open_deals AS
SELECT
    d.id,
    d.acquirer_name,
    d.target_name,
    d.target_ticker,
    d.status,
    d.deal_value_usd,
    d.announced_on,
    d.expected_close_on,
    s.name AS source_name
FROM deals d
LEFT JOIN sources s ON s.id = d.source_id
WHERE d.status IN ('rumoured', 'announced', 'pending');

-- 6. Comments
COMMENT ON TABLE sources IS 'Places where deal news is published';
COMMENT ON COLUMN sources.id IS 'Key';
COMMENT ON COLUMN sources.name IS 'Name as shown to analysts';
COMMENT ON COLUMN sources.url IS 'Address that is read';
COMMENT ON COLUMN sources.kind IS 'What is published there';
COMMENT ON COLUMN sources.is_active IS 'False: kept for its deals, no longer read';
COMMENT ON COLUMN sources.metadata IS 'Language, region, and what else a reader of the source needs';
COMMENT ON COLUMN sources.created_at IS 'When the row was written';
COMMENT ON COLUMN sources.updated_at IS 'When the row was last changed';

COMMENT ON TABLE deals IS 'Mergers and acquisitions, one row for each offer';
COMMENT ON COLUMN deals.id IS 'Key';
COMMENT ON COLUMN deals.acquirer_name IS 'Company that buys';
COMMENT ON COLUMN deals.target_name IS 'Company that is bought';
COMMENT ON COLUMN deals.target_ticker IS 'Symbol of the target; null for a private company';
COMMENT ON COLUMN deals.status IS 'How far the deal has come';
COMMENT ON COLUMN deals.deal_value_usd IS 'Value of the whole deal in US dollars; null when not disclosed';
COMMENT ON COLUMN deals.offer_price IS 'Price for one share, in the currency of the deal';
COMMENT ON COLUMN deals.currency IS 'ISO 4217 code of the offer price';
COMMENT ON COLUMN deals.announced_on IS 'Day of the announcement, or of the first rumour';
COMMENT ON COLUMN deals.expected_close_on IS 'Day on which the parties expect to close';
COMMENT ON COLUMN deals.details IS 'Terms: consideration, conditions, advisers';
COMMENT ON COLUMN deals.source_id IS 'Where we read of it first; null when entered by hand';
COMMENT ON COLUMN deals.created_at IS 'When the row was written';
COMMENT ON COLUMN deals.updated_at IS 'When the row was last changed';

COMMENT ON VIEW open_deals IS 'Deals that are neither completed nor terminated, with their source';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP VIEW open_deals;
-- DROP TABLE deals;
-- DROP TABLE sources;
-- DROP TYPE deal_status;
