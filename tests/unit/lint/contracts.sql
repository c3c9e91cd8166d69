--# drop-column
--bad
ALTER TABLE deals DROP COLUMN note;
--good
-- Phase: contract
ALTER TABLE deals DROP COLUMN note;

--# drop-table
--bad
DROP TABLE deals;
--good
-- Phase: contract
DROP TABLE deals;
--good
CREATE TABLE scratch (id bigint);
DROP TABLE scratch;

--# drop-view
--bad
DROP VIEW open_deals;
--good
DROP VIEW open_deals;
CREATE VIEW open_deals AS SELECT id FROM deals;

--# drop-cascade
--bad
-- Phase: contract
ALTER TABLE deals DROP COLUMN note CASCADE;
--good
-- Phase: contract
ALTER TABLE deals DROP COLUMN note;

--# drop-database
--bad
DROP DATABASE tracker;
--bad
DROP SCHEMA old CASCADE;
--good
-- Phase: contract
DROP SCHEMA scratch;

--# rename-column
--bad
ALTER TABLE deals RENAME COLUMN note TO remark;
--good
ALTER TABLE deals ADD COLUMN remark text;

--# rename-table
--bad
ALTER TABLE deals RENAME TO offers;
--good
ALTER TABLE deals RENAME TO offers;
CREATE VIEW deals AS SELECT * FROM offers;

--# breaks-running-code
--bad
ALTER TABLE deals SET SCHEMA archive;
--good
ALTER TABLE deals ADD COLUMN note text;

--# expand-and-contract
--bad
ALTER TABLE deals ADD COLUMN remark text;
--next file
-- Phase: contract
ALTER TABLE deals DROP COLUMN note;
--good
ALTER TABLE deals ADD COLUMN remark text;
--next file
-- Phase: contract
ALTER TABLE sources DROP COLUMN note;

--# row-security-off
--bad
ALTER TABLE deals DISABLE ROW LEVEL SECURITY;
--good
ALTER TABLE deals ENABLE ROW LEVEL SECURITY;
