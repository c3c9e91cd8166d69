--# index-not-concurrent
--bad
CREATE INDEX idx_deals_status ON deals (status);
--bad
CREATE UNIQUE INDEX IF NOT EXISTS uq_deals ON crm."Deals" USING btree (lower(name) DESC) INCLUDE (id) WHERE name <> '';
--bad
CREATE INDEX ON deals (status, announced_on);
--good
CREATE INDEX CONCURRENTLY idx_deals_status ON deals (status);
--good
CREATE TABLE halts (id bigint, code text);
CREATE INDEX idx_halts_code ON halts (code);

--# index-if-not-exists
--bad
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_deals_status ON deals (status);
--good
DROP INDEX CONCURRENTLY IF EXISTS idx_deals_status;
CREATE INDEX CONCURRENTLY idx_deals_status ON deals (status);

--# drop-index-not-concurrent
--bad
DROP INDEX idx_deals_status;
--bad
DROP INDEX IF EXISTS crm.idx_a, crm.idx_b;
--good
DROP INDEX CONCURRENTLY idx_deals_status;

--# reindex-not-concurrent
--bad
REINDEX INDEX idx_deals_status;
--bad
REINDEX TABLE crm.deals;
--good
REINDEX INDEX CONCURRENTLY idx_deals_status;
--good
REINDEX (CONCURRENTLY) TABLE deals;

--# concurrently-in-transaction
--bad
BEGIN;
CREATE INDEX CONCURRENTLY idx_deals_status ON deals (status);
COMMIT;
--good
BEGIN;
ALTER TABLE deals ADD COLUMN note text;
COMMIT;
CREATE INDEX CONCURRENTLY idx_deals_status ON deals (status);

--# foreign-key-without-index
--bad
ALTER TABLE deals ADD CONSTRAINT fk_deals_source FOREIGN KEY (source_id) REFERENCES sources (id) NOT VALID;
--bad
CREATE TABLE notes (id bigint PRIMARY KEY, deal_id bigint REFERENCES deals (id));
--good
CREATE TABLE notes (id bigint PRIMARY KEY, deal_id bigint REFERENCES deals (id));
CREATE INDEX idx_notes_deal_id ON notes (deal_id);
--good
CREATE TABLE notes (deal_id bigint REFERENCES deals (id), n bigint, PRIMARY KEY (deal_id, n));
--good
CREATE TABLE notes (id bigint PRIMARY KEY, deal_id bigint REFERENCES deals (id));
CREATE INDEX idx_notes_deal_id ON notes (deal_id) WHERE deal_id IS NOT NULL;
--bad
CREATE TABLE notes (id bigint PRIMARY KEY, deal_id bigint REFERENCES deals (id), is_open boolean);
CREATE INDEX idx_notes_deal_id ON notes (deal_id) WHERE is_open;
