--# foreign-key-validates
--bad
ALTER TABLE deals ADD CONSTRAINT fk_deals_source FOREIGN KEY (source_id) REFERENCES sources (id) ON DELETE RESTRICT;
CREATE INDEX CONCURRENTLY idx_deals_source_id ON deals (source_id);
--bad
ALTER TABLE crm.deals ADD FOREIGN KEY (buyer, target) REFERENCES crm.companies;
--bad
ALTER TABLE deals ADD COLUMN source_id bigint NOT NULL DEFAULT 1 REFERENCES sources (id);
--good
ALTER TABLE deals ADD CONSTRAINT fk_deals_source FOREIGN KEY (source_id) REFERENCES sources (id) NOT VALID;
CREATE INDEX CONCURRENTLY idx_deals_source_id ON deals (source_id);
--good
ALTER TABLE deals VALIDATE CONSTRAINT fk_deals_source;
--good
CREATE TABLE notes (id bigint PRIMARY KEY, deal_id bigint);
ALTER TABLE notes ADD CONSTRAINT fk_notes_deal FOREIGN KEY (deal_id) REFERENCES deals (id);
CREATE INDEX idx_notes_deal_id ON notes (deal_id);

--# check-validates
--bad
ALTER TABLE deals ADD CONSTRAINT ck_deals_price CHECK (price > 0 AND price < 1e9);
--bad
ALTER TABLE deals ADD COLUMN price numeric DEFAULT 1 CHECK (price > 0);
--good
ALTER TABLE deals ADD CONSTRAINT ck_deals_price CHECK (price > 0) NOT VALID;

--# domain-constraint-validates
--bad
ALTER DOMAIN ticker ADD CONSTRAINT ticker_upper CHECK (VALUE = upper(VALUE));
--good
ALTER DOMAIN ticker ADD CONSTRAINT ticker_upper CHECK (VALUE = upper(VALUE)) NOT VALID;

--# set-not-null
--bad
ALTER TABLE deals ALTER COLUMN price SET NOT NULL;
--good
ALTER TABLE deals ADD CONSTRAINT deals_price_not_null CHECK (price IS NOT NULL) NOT VALID;
--good
ALTER TABLE deals ALTER COLUMN price DROP NOT NULL;

--# not-null-constraint-validates
--bad
ALTER TABLE deals ADD CONSTRAINT deals_price_not_null NOT NULL price;
--good
ALTER TABLE deals ADD CONSTRAINT deals_price_not_null NOT NULL price NOT VALID;

--# add-column-not-null
--bad
ALTER TABLE deals ADD COLUMN price numeric(12, 4) NOT NULL;
--good
ALTER TABLE deals ADD COLUMN price numeric(12, 4);
--good
ALTER TABLE deals ADD COLUMN price numeric(12, 4) NOT NULL DEFAULT 0;

--# unique-without-index
--bad
ALTER TABLE deals ADD CONSTRAINT uq_deals_ticker UNIQUE (ticker, announced_on);
--bad
ALTER TABLE deals ADD PRIMARY KEY (id);
--bad
ALTER TABLE deals ADD COLUMN ticker text UNIQUE;
--good
CREATE UNIQUE INDEX CONCURRENTLY uq_deals_ticker ON deals (ticker, announced_on);
ALTER TABLE deals ADD CONSTRAINT uq_deals_ticker UNIQUE USING INDEX uq_deals_ticker;

--# exclusion-constraint
--bad
ALTER TABLE bookings ADD CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&);
--good
CREATE TABLE bookings_new (during tstzrange, CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&));

--# validate-with-not-valid
--bad
ALTER TABLE deals ADD CONSTRAINT ck_price CHECK (price > 0) NOT VALID;
ALTER TABLE deals VALIDATE CONSTRAINT ck_price;
--bad
ALTER TABLE deals ADD CONSTRAINT ck_price CHECK (price > 0) NOT VALID, VALIDATE CONSTRAINT ck_price;
--good
ALTER TABLE deals ADD CONSTRAINT ck_price CHECK (price > 0) NOT VALID;
--next file
ALTER TABLE deals VALIDATE CONSTRAINT ck_price;
--good
BEGIN;
ALTER TABLE deals ADD CONSTRAINT ck_price CHECK (price > 0) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE deals VALIDATE CONSTRAINT ck_price;
COMMIT;
