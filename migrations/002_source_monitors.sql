-- Migration 002: Source Monitors
-- Purpose: How often each source is read, and what came of every reading
-- Author: M&A Tracker team
-- Date: 2025-01-27

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Tables
CREATE TABLE source_monitors (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    source_id UUID NOT NULL,
    name VARCHAR(255) NOT NULL,
    poll_interval_s INTEGER NOT NULL DEFAULT 300,
    settings JSONB NOT NULL DEFAULT '{}'::jsonb,
    is_enabled BOOLEAN NOT NULL DEFAULT TRUE,
    last_checked_at TIMESTAMPTZ,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_source_monitors_poll_interval CHECK (poll_interval_s BETWEEN 10 AND 86400)
);

CREATE TABLE source_monitor_runs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    monitor_id UUID NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    finished_at TIMESTAMPTZ,
    items_found INTEGER NOT NULL DEFAULT 0,
    error TEXT,

    CONSTRAINT ck_source_monitor_runs_items_found CHECK (items_found >= 0),
    CONSTRAINT ck_source_monitor_runs_order CHECK (finished_at >= started_at)
);

-- 2. Foreign keys. A monitor means nothing without its source, a run nothing without its monitor.
ALTER TABLE source_monitors
    ADD CONSTRAINT fk_source_monitors_source
    FOREIGN KEY (source_id) REFERENCES sources (id)
    ON DELETE CASCADE;

ALTER TABLE source_monitor_runs
    ADD CONSTRAINT fk_source_monitor_runs_monitor
    FOREIGN KEY (monitor_id) REFERENCES source_monitors (id)
    ON DELETE CASCADE;

-- 3. Indexes
CREATE INDEX idx_source_monitors_source_id ON source_monitors (source_id);
CREATE INDEX idx_source_monitors_due ON source_monitors (last_checked_at NULLS FIRST) WHERE is_enabled;
CREATE INDEX idx_source_monitor_runs_monitor_id ON source_monitor_runs (monitor_id, started_at DESC);

-- 4. Comments
COMMENT ON TABLE source_monitors IS 'Standing orders to read a source';
COMMENT ON COLUMN source_monitors.id IS 'Key';
COMMENT ON COLUMN source_monitors.source_id IS 'Source that is read; its monitors go with it';
COMMENT ON COLUMN source_monitors.name IS 'What this monitor looks for';
COMMENT ON COLUMN source_monitors.poll_interval_s IS 'Seconds between two readings';
COMMENT ON COLUMN source_monitors.settings IS 'Selectors and headers for the reader';
COMMENT ON COLUMN source_monitors.is_enabled IS 'False: paused';
COMMENT ON COLUMN source_monitors.last_checked_at IS 'Start of the latest reading; null before the first';
COMMENT ON COLUMN source_monitors.created_at IS 'When the row was written';
COMMENT ON COLUMN source_monitors.updated_at IS 'When the row was last changed';

COMMENT ON TABLE source_monitor_runs IS 'One row for each reading of a source';
COMMENT ON COLUMN source_monitor_runs.id IS 'Key, growing';
COMMENT ON COLUMN source_monitor_runs.monitor_id IS 'Monitor that ran';
COMMENT ON COLUMN source_monitor_runs.started_at IS 'When the reading began';
COMMENT ON COLUMN source_monitor_runs.finished_at IS 'When it ended; null while it runs';
COMMENT ON COLUMN source_monitor_runs.items_found IS 'New items in this reading';
COMMENT ON COLUMN source_monitor_runs.error IS 'Why it failed; null when it did not';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP TABLE source_monitor_runs;
-- DROP TABLE source_monitors;
