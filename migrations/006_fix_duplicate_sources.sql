-- Migration 006: Fix Duplicate Sources
-- Purpose: Merge sources that differ only in how their address is written, and keep new ones out
-- Author: M&A Tracker team
-- Date: 2025-04-07

-- ==============================================
-- FORWARD MIGRATION
-- ==============================================

-- 1. Readers go on. EXCLUSIVE, because the foreign key check of a new child takes ROW SHARE here:
--    none may attach itself to a source that is about to go.
LOCK TABLE sources IN EXCLUSIVE MODE;

-- 2. When two addresses are the same place: scheme, "www.", capitals in the host, fragment and
--    closing slashes make no difference; path and query do.
CREATE FUNCTION normalised_url(url TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT lower(substring(bare FROM '^[^/?]*')) || rtrim(substring(bare FROM '^[^/?]*(.*)$'), '/')
    FROM (
        SELECT regexp_replace(
            regexp_replace(btrim(url), '#.*$', ''), '^(https?://)?(www\.)?', '', 'i'
        ) AS bare
    ) AS stripped
$$;

-- 3. What is removed, with all that is needed to put it back
CREATE TABLE source_duplicates (
    id UUID PRIMARY KEY,

    survivor_id UUID NOT NULL,
    name VARCHAR(255) NOT NULL,
    url TEXT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    is_active BOOLEAN NOT NULL,
    metadata JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,

    deal_ids UUID[] NOT NULL DEFAULT '{}',
    monitor_ids UUID[] NOT NULL DEFAULT '{}',
    intelligence_ids BIGINT[] NOT NULL DEFAULT '{}',
    merged_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

ALTER TABLE source_duplicates
    ADD CONSTRAINT fk_source_duplicates_survivor
    FOREIGN KEY (survivor_id) REFERENCES sources (id)
    ON DELETE RESTRICT;

CREATE INDEX idx_source_duplicates_survivor_id ON source_duplicates (survivor_id);

-- 4. Find them: the oldest source of each address survives
WITH ranked AS (
    SELECT
        s.id,
        first_value(s.id) OVER (
            PARTITION BY normalised_url(s.url) ORDER BY s.created_at, s.id
        ) AS survivor_id
    FROM sources s
)
INSERT INTO source_duplicates (
    id, survivor_id, name, url, kind, is_active, metadata, created_at, updated_at,
    deal_ids, monitor_ids, intelligence_ids
)
SELECT
    s.id, r.survivor_id, s.name, s.url, s.kind, s.is_active, s.metadata, s.created_at, s.updated_at,
    ARRAY(SELECT d.id FROM deals d WHERE d.source_id = s.id ORDER BY d.id),
    ARRAY(SELECT m.id FROM source_monitors m WHERE m.source_id = s.id ORDER BY m.id),
    ARRAY(SELECT i.id FROM deal_intelligence i WHERE i.source_id = s.id ORDER BY i.id)
FROM ranked r
JOIN sources s ON s.id = r.id
WHERE r.id <> r.survivor_id;

-- 5. Merge them: children first, since two of the three foreign keys are RESTRICT and the third
--    would take the monitors along
UPDATE deals d
SET source_id = s.survivor_id
FROM source_duplicates s
WHERE d.source_id = s.id;

UPDATE source_monitors m
SET source_id = s.survivor_id
FROM source_duplicates s
WHERE m.source_id = s.id;

UPDATE deal_intelligence i
SET source_id = s.survivor_id
FROM source_duplicates s
WHERE i.source_id = s.id;

DELETE FROM sources s
USING source_duplicates r
WHERE s.id = r.id;

-- 6. No new ones
CREATE UNIQUE INDEX uq_sources_normalised_url ON sources (normalised_url(url));

-- 7. Comments
COMMENT ON FUNCTION normalised_url(TEXT) IS 'The address without what makes no difference; equal means the same source';
COMMENT ON INDEX uq_sources_normalised_url IS 'One source for each address, however it is written';

COMMENT ON TABLE source_duplicates IS 'Sources that migration 006 merged into another, as they were';
COMMENT ON COLUMN source_duplicates.id IS 'Key that the source had';
COMMENT ON COLUMN source_duplicates.survivor_id IS 'Source that it was merged into';
COMMENT ON COLUMN source_duplicates.name IS 'Its name';
COMMENT ON COLUMN source_duplicates.url IS 'Its address as written';
COMMENT ON COLUMN source_duplicates.kind IS 'Its kind';
COMMENT ON COLUMN source_duplicates.is_active IS 'Whether it was read';
COMMENT ON COLUMN source_duplicates.metadata IS 'Its metadata';
COMMENT ON COLUMN source_duplicates.created_at IS 'When it was written';
COMMENT ON COLUMN source_duplicates.updated_at IS 'When it was last changed';
COMMENT ON COLUMN source_duplicates.deal_ids IS 'Deals that pointed to it';
COMMENT ON COLUMN source_duplicates.monitor_ids IS 'Monitors that pointed to it';
COMMENT ON COLUMN source_duplicates.intelligence_ids IS 'Items that pointed to it';
COMMENT ON COLUMN source_duplicates.merged_at IS 'When it was merged';

-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- Every removed source comes back under its own key. A child that was moved goes back to it,
-- unless somebody has moved the child again since.
-- To rollback this migration, run:
-- LOCK TABLE sources IN EXCLUSIVE MODE;
-- DROP INDEX uq_sources_normalised_url;
-- INSERT INTO sources (id, name, url, kind, is_active, metadata, created_at, updated_at)
-- SELECT s.id, s.name, s.url, s.kind, s.is_active, s.metadata, s.created_at, s.updated_at
-- FROM source_duplicates s
-- ORDER BY s.created_at, s.id;
-- UPDATE deals d
-- SET source_id = s.id
-- FROM source_duplicates s CROSS JOIN LATERAL unnest(s.deal_ids) AS child (id)
-- WHERE d.id = child.id AND d.source_id = s.survivor_id;
-- UPDATE source_monitors m
-- SET source_id = s.id
-- FROM source_duplicates s CROSS JOIN LATERAL unnest(s.monitor_ids) AS child (id)
-- WHERE m.id = child.id AND m.source_id = s.survivor_id;
-- UPDATE deal_intelligence i
-- SET source_id = s.id
-- FROM source_duplicates s CROSS JOIN LATERAL unnest(s.intelligence_ids) AS child (id)
-- WHERE i.id = child.id AND i.source_id = s.survivor_id;
-- DROP TABLE source_duplicates;
-- DROP FUNCTION normalised_url(TEXT);
