-- Migration 010: Halt Monitoring
-- Purpose: Trading halts of the companies in our deals, while they last and afterwards
-- Author: M&A Tracker team
-- Date: 2025-09-08

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Types
CREATE TYPE halt_code AS ENUM (
    'T1',
    'T2',
    'T5',
    'T6',
    'T8',
    'T12',
    'H4',
    'H9',
    'H10',
    'H11',
    'LUDP',
    'MWC1',
    'MWC2',
    'MWC3',
    'M'
);

COMMENT ON TYPE halt_code IS
    'Why trading stopped, as exchanges code it: T1 news pending, T2 news released, T5 single stock pause, '
    'T6 extraordinary activity, T8 fund, T12 information requested, H4 and H9 not compliant or not '
    'current, H10 SEC suspension, H11 regulatory concern, LUDP volatility pause, MWC1 to MWC3 market-wide, '
    'M volatility pause of another exchange';

-- 2. Tables
CREATE TABLE trading_halts (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    ticker VARCHAR(12) NOT NULL,
    code halt_code NOT NULL,
    halted_at TIMESTAMPTZ NOT NULL,
    resumed_at TIMESTAMPTZ,
    exchange VARCHAR(16),
    note TEXT,
    details JSONB NOT NULL DEFAULT '{}'::jsonb,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT uq_trading_halts_ticker_halted_at UNIQUE (ticker, halted_at),
    CONSTRAINT ck_trading_halts_order CHECK (resumed_at >= halted_at)
);

-- 3. Columns on existing tables. Nullable and without default: no row is touched.
ALTER TABLE deals
    ADD COLUMN last_halt_at TIMESTAMPTZ;

-- 4. Foreign keys. The record of a halt outlives the listing: a symbol with halts stays.
ALTER TABLE trading_halts
    ADD CONSTRAINT fk_trading_halts_ticker
    FOREIGN KEY (ticker) REFERENCES tickers (symbol)
    ON UPDATE CASCADE ON DELETE RESTRICT;

-- 5. Indexes, all on the new and empty table
CREATE INDEX idx_trading_halts_active ON trading_halts (ticker) WHERE resumed_at IS NULL;
CREATE INDEX idx_trading_halts_halted_at ON trading_halts (halted_at DESC);
CREATE INDEX idx_trading_halts_details ON trading_halts USING GIN (details jsonb_path_ops);

-- 6. Views
CREATE VIEW active_halts AS
SELECT
    h.id,
    h.ticker,
    h.code,
    h.halted_at,
    d.id AS deal_id,
    d.acquirer_name,
    d.target_name,
    d.status AS deal_status
FROM trading_halts h
LEFT JOIN deals d
    ON d.target_ticker = h.ticker
    AND d.status IN ('rumoured', 'announced', 'pending')
WHERE h.resumed_at IS NULL;

-- 7. Comments
COMMENT ON TABLE trading_halts IS 'Trading halts, one row for each';
COMMENT ON COLUMN trading_halts.id IS 'Key';
COMMENT ON COLUMN trading_halts.ticker IS 'Company whose shares were halted';
COMMENT ON COLUMN trading_halts.code IS 'Why trading stopped';
COMMENT ON COLUMN trading_halts.halted_at IS 'When trading stopped';
COMMENT ON COLUMN trading_halts.resumed_at IS 'When trading went on; null while it is halted';
COMMENT ON COLUMN trading_halts.exchange IS 'Exchange that halted it; null when not told';
COMMENT ON COLUMN trading_halts.note IS 'What the exchange or an analyst added';
COMMENT ON COLUMN trading_halts.details IS 'The notice as received';
COMMENT ON COLUMN trading_halts.created_at IS 'When the row was written';
COMMENT ON COLUMN trading_halts.updated_at IS 'When the row was last changed';

COMMENT ON COLUMN deals.last_halt_at IS 'When the target''s shares were last halted; null if never since 010';

COMMENT ON VIEW active_halts IS 'Halts that last, with the open deals that they touch';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP VIEW active_halts;
-- ALTER TABLE deals DROP COLUMN last_halt_at;
-- DROP TABLE trading_halts;
-- DROP TYPE halt_code;
