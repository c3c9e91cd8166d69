-- Migration 008: Deal Research
-- Purpose: What our analysts write about a deal, searchable, with the sources that they cite
-- Author: M&A Tracker team
-- Date: 2025-06-02

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Tables
CREATE TABLE deal_research (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),

    deal_id UUID NOT NULL,
    analyst VARCHAR(64) NOT NULL,
    title VARCHAR(255) NOT NULL,
    summary TEXT NOT NULL DEFAULT '',
    findings JSONB NOT NULL DEFAULT '{}'::jsonb,
    close_probability NUMERIC(4, 3),
    search TSVECTOR GENERATED ALWAYS AS (
        to_tsvector('english', title || ' ' || summary)
    ) STORED,
    published_at TIMESTAMPTZ,

    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),

    CONSTRAINT ck_deal_research_close_probability CHECK (close_probability BETWEEN 0 AND 1)
);

CREATE TABLE deal_research_citations (
    research_id UUID NOT NULL,
    position SMALLINT NOT NULL,
    source_id UUID NOT NULL,
    quotation TEXT,

    CONSTRAINT pk_deal_research_citations PRIMARY KEY (research_id, position),
    CONSTRAINT ck_deal_research_citations_position CHECK (position > 0)
);

-- 2. Foreign keys. Notes go with their deal, citations with their note; a cited source stays.
ALTER TABLE deal_research
    ADD CONSTRAINT fk_deal_research_deal
    FOREIGN KEY (deal_id) REFERENCES deals (id)
    ON DELETE CASCADE;

ALTER TABLE deal_research_citations
    ADD CONSTRAINT fk_deal_research_citations_research
    FOREIGN KEY (research_id) REFERENCES deal_research (id)
    ON DELETE CASCADE;

ALTER TABLE deal_research_citations
    ADD CONSTRAINT fk_deal_research_citations_source
    FOREIGN KEY (source_id) REFERENCES sources (id)
    ON DELETE RESTRICT;

-- 3. Indexes
CREATE INDEX idx_deal_research_deal_id ON deal_research (deal_id, created_at DESC);
CREATE INDEX idx_deal_research_findings ON deal_research USING GIN (findings);
CREATE INDEX idx_deal_research_search ON deal_research USING GIN (search);
CREATE INDEX idx_deal_research_citations_source_id ON deal_research_citations (source_id);

-- 4. Comments
COMMENT ON TABLE deal_research IS 'Notes of our analysts, one row for each';
COMMENT ON COLUMN deal_research.id IS 'Key';
COMMENT ON COLUMN deal_research.deal_id IS 'Deal that the note is about';
COMMENT ON COLUMN deal_research.analyst IS 'Who wrote it';
COMMENT ON COLUMN deal_research.title IS 'First line';
COMMENT ON COLUMN deal_research.summary IS 'The note itself';
COMMENT ON COLUMN deal_research.findings IS 'Numbers and judgements in a form that can be queried';
COMMENT ON COLUMN deal_research.close_probability IS 'How likely the deal is to close, from 0 to 1';
COMMENT ON COLUMN deal_research.search IS 'Title and summary for full-text search';
COMMENT ON COLUMN deal_research.published_at IS 'When customers could read it; null for a draft';
COMMENT ON COLUMN deal_research.created_at IS 'When the row was written';
COMMENT ON COLUMN deal_research.updated_at IS 'When the row was last changed';

COMMENT ON TABLE deal_research_citations IS 'Sources that a note cites, in its order';
COMMENT ON COLUMN deal_research_citations.research_id IS 'Note that cites';
COMMENT ON COLUMN deal_research_citations.position IS 'Place in the list, from 1';
COMMENT ON COLUMN deal_research_citations.source_id IS 'Source that is cited';
COMMENT ON COLUMN deal_research_citations.quotation IS 'Words taken from it; null when it is cited as a whole';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
-- DROP TABLE deal_research_citations;
-- DROP TABLE deal_research;
