--# column-type-change
--bad
ALTER TABLE deals ALTER COLUMN premium TYPE bigint;
--bad
ALTER TABLE "Deals" ALTER COLUMN "dealValue" TYPE numeric(10, 2) USING "dealValue"::numeric(10, 2);
--good
ALTER TABLE deals ADD COLUMN premium_new bigint;
--good
CREATE TABLE deals (id bigint, premium int);
ALTER TABLE deals ALTER COLUMN premium TYPE bigint;

--# add-column-volatile-default
--bad
ALTER TABLE deals ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL;
--bad
ALTER TABLE deals ADD COLUMN seen_at timestamptz(3) DEFAULT clock_timestamp();
--good
ALTER TABLE deals ADD COLUMN token uuid;
ALTER TABLE deals ALTER COLUMN token SET DEFAULT gen_random_uuid();
--good
ALTER TABLE deals ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now();
--good
ALTER TABLE deals ADD COLUMN kind text NOT NULL DEFAULT 'merger';

--# add-column-generated
--bad
ALTER TABLE deals ADD COLUMN total numeric GENERATED ALWAYS AS (price * shares) STORED;
--good
ALTER TABLE deals ADD COLUMN total numeric;

--# add-column-serial
--bad
ALTER TABLE deals ADD COLUMN number bigserial;
--bad
ALTER TABLE deals ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
--good
ALTER TABLE deals ADD COLUMN number bigint;

--# vacuum-full
--bad
VACUUM FULL deals;
--bad
VACUUM (FULL, ANALYZE) deals;
--good
VACUUM (ANALYZE) deals;

--# cluster
--bad
CLUSTER deals USING idx_deals_status;
--good
ANALYZE deals;

--# truncate
--bad
TRUNCATE deals;
--bad
TRUNCATE deals, sources CASCADE;
--good
CREATE TABLE staging (id bigint);
TRUNCATE staging;

--# lock-table
--bad
LOCK TABLE deals IN EXCLUSIVE MODE;
--good
SELECT FROM deals WHERE id = 1 FOR UPDATE;
--good
LOCK TABLE deals IN ROW EXCLUSIVE MODE;

--# refresh-not-concurrent
--bad
REFRESH MATERIALIZED VIEW deal_totals;
--good
REFRESH MATERIALIZED VIEW CONCURRENTLY deal_totals;

--# attach-partition
--bad
ALTER TABLE events ATTACH PARTITION events_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
--good
CREATE TABLE events_2027 (LIKE events);
ALTER TABLE events ATTACH PARTITION events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');

--# detach-partition
--bad
ALTER TABLE events DETACH PARTITION events_2019;
--good
ALTER TABLE events DETACH PARTITION events_2019 CONCURRENTLY;

--# short-lock
--bad
CREATE TRIGGER deals_touched BEFORE UPDATE ON deals FOR EACH ROW EXECUTE FUNCTION touch();
--good
CREATE TABLE notes (id bigint);
CREATE TRIGGER notes_touched BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();

--# unknown-effect
--bad
DO $$ BEGIN EXECUTE 'ALTER TABLE deals ADD COLUMN note text'; END $$;
--good
ALTER TABLE deals ADD COLUMN note text;

--# locked-while-working
--bad
ALTER TABLE deals SET UNLOGGED;
--bad
ALTER TABLE deals SET TABLESPACE fast;
--good
ALTER TABLE deals SET (fillfactor = 80);

--# replica-identity-full
--bad
ALTER TABLE deals REPLICA IDENTITY FULL;
--good
ALTER TABLE deals REPLICA IDENTITY USING INDEX deals_pkey;
