-- Migration 004: Ticker Master
-- Purpose: One list of listed companies that the deals refer to
-- Author: M&A Tracker team
-- Date: 2025-02-24

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Tables
CREATE TABLE tickers (
    symbol VARCHAR(12) PRIMARY KEY,

    company_name VARCHAR(255) NOT NULL,
    exchange VARCHAR(16),
    cik VARCHAR(10),
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    listed_on DATE,
    delisted_on DATE,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_tickers_symbol CHECK (symbol ~ '^[A-Z0-9][A-Z0-9.-]*$'),
    CONSTRAINT ck_tickers_cik CHECK (cik ~ '^[0-9]{1,10}$'),
    CONSTRAINT ck_tickers_delisted_after_listed CHECK (delisted_on >= listed_on)
);

-- 2. A symbol that is none would fail below with one row named; name them all.
DO $$
DECLARE
    unreadable TEXT;
BEGIN
    SELECT string_agg(DISTINCT d.target_ticker, ', ' ORDER BY d.target_ticker)
    INTO unreadable
    FROM deals d
    WHERE d.target_ticker !~ '^[A-Z0-9][A-Z0-9.-]*$';

    IF unreadable IS NOT NULL THEN
        RAISE EXCEPTION 'deals.target_ticker holds what are not symbols: %', unreadable
        USING HINT = 'Write them in capitals, digits, dots and hyphens, then start again.';
    END IF;
END $$;

-- 3. The symbols that deals use already; the exchange is filled in by the next master file.
INSERT INTO tickers (symbol, company_name)
SELECT d.target_ticker, MIN(d.target_name)
FROM deals d
WHERE d.target_ticker IS NOT NULL
GROUP BY d.target_ticker;

-- 4. Columns on existing tables
ALTER TABLE deals
    ADD COLUMN acquirer_ticker VARCHAR(12);

-- 5. Foreign keys. A symbol in use may be renamed, not removed.
ALTER TABLE deals
    ADD CONSTRAINT fk_deals_target_ticker
    FOREIGN KEY (target_ticker) REFERENCES tickers (symbol)
    ON UPDATE CASCADE ON DELETE RESTRICT;

ALTER TABLE deals
    ADD CONSTRAINT fk_deals_acquirer_ticker
    FOREIGN KEY (acquirer_ticker) REFERENCES tickers (symbol)
    ON UPDATE CASCADE ON DELETE RESTRICT;

-- 6. Indexes
CREATE UNIQUE INDEX uq_tickers_cik_active ON tickers (cik) WHERE is_active;
CREATE INDEX idx_tickers_company_name ON tickers (lower(company_name));
CREATE INDEX idx_deals_acquirer_ticker ON deals (acquirer_ticker) WHERE acquirer_ticker IS NOT NULL;

-- 7. Comments
COMMENT ON TABLE tickers IS 'Listed companies by symbol';
COMMENT ON COLUMN tickers.symbol IS 'Symbol in capitals, unique over all exchanges that we follow';
COMMENT ON COLUMN tickers.company_name IS 'Registered name';
COMMENT ON COLUMN tickers.exchange IS 'Exchange of the main listing; null until the master file names it';
COMMENT ON COLUMN tickers.cik IS 'Central Index Key of the SEC; null outside the United States';
COMMENT ON COLUMN tickers.is_active IS 'False: no longer traded';
COMMENT ON COLUMN tickers.listed_on IS 'First day of trading';
COMMENT ON COLUMN tickers.delisted_on IS 'Last day of trading; null while it is listed';
COMMENT ON COLUMN tickers.created_at IS 'When the row was written';
COMMENT ON COLUMN tickers.updated_at IS 'When the row was last changed';

COMMENT ON COLUMN deals.acquirer_ticker IS 'Symbol of the acquirer; null for a private company';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- ALTER TABLE deals DROP CONSTRAINT fk_deals_target_ticker;
-- ALTER TABLE deals DROP COLUMN acquirer_ticker;
-- DROP TABLE tickers;
