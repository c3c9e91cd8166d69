--# ddl-and-backfill
--bad
ALTER TABLE deals ADD COLUMN note text;
UPDATE deals SET note = details ->> 'note';
--bad
UPDATE deals SET kind = 'merger' WHERE kind IS NULL;
ALTER TABLE deals ADD CONSTRAINT ck_kind CHECK (kind <> '') NOT VALID;
--bad
CREATE TABLE notes (deal_id bigint PRIMARY KEY REFERENCES deals (id));
INSERT INTO notes SELECT id FROM deals;
--good
ALTER TABLE deals ADD COLUMN note text;
--next file
-- Airlock: backfill table=deals key=id batch=5000
UPDATE deals SET note = details ->> 'note' WHERE note IS NULL;

--# statements-after-lock
--bad
ALTER TABLE deals ADD COLUMN note text;
ALTER TABLE sources ADD COLUMN note text;
--bad
BEGIN;
ALTER TABLE deals ADD COLUMN note text;
SELECT count(*) FROM deals;
COMMIT;
--good
ALTER TABLE deals ADD COLUMN note text;
COMMENT ON COLUMN deals.note IS 'What an analyst added';
--good
BEGIN;
ALTER TABLE deals ADD COLUMN note text;
COMMIT;
SELECT count(*) FROM deals;

--# unbatched-change
--bad
UPDATE deals SET score = 0;
--bad
DELETE FROM deals WHERE status = 'terminated';
--bad
MERGE INTO deals d USING prices p ON p.deal_id = d.id WHEN MATCHED THEN UPDATE SET price = p.price;
--bad
WITH gone AS (DELETE FROM deals RETURNING *) INSERT INTO archive SELECT * FROM gone;
--good
WITH gone AS (DELETE FROM deals WHERE id IN (SELECT id FROM deals LIMIT 5000) RETURNING *)
INSERT INTO archive SELECT * FROM gone;
--good
UPDATE deals SET score = 0 WHERE id = 5;
--good
DELETE FROM deals WHERE id IN (SELECT id FROM deals WHERE status = 'terminated' LIMIT 5000);
--good
UPDATE deals SET score = 0 WHERE id > 5000 AND id <= 10000;
--good
-- Airlock: backfill table=deals key=id batch=5000
UPDATE deals SET score = 0 WHERE score IS NULL;

--# enum-value-used-at-once
--bad
ALTER TYPE deal_status ADD VALUE 'withdrawn';
UPDATE deals SET status = 'withdrawn' WHERE id = 5;
--good
ALTER TYPE deal_status ADD VALUE 'withdrawn';
--next file
UPDATE deals SET status = 'withdrawn' WHERE id = 5;

--# transaction-left-open
--bad
BEGIN;
ALTER TABLE deals ADD COLUMN note text;
--good
BEGIN;
ALTER TABLE deals ADD COLUMN note text;
COMMIT;

--# many-changes
--bad
ALTER TABLE deals ADD COLUMN note text;
CREATE TABLE holidays (day date PRIMARY KEY);
--good
CREATE TYPE halt_code AS ENUM ('T1', 'T2');
CREATE TABLE halts (id bigint PRIMARY KEY, code halt_code);
CREATE INDEX idx_halts_code ON halts (code);
COMMENT ON TYPE halt_code IS 'Why trading stopped';
COMMENT ON COLUMN halts.code IS 'Why it stopped';
