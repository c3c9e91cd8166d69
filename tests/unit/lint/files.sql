--# syntax
--bad
CREATE TABEL notes (id bigint);
--bad
\i other.sql
--good
CREATE TABLE notes (id bigint);

--# allow-without-reason
--bad
-- airlock: allow truncate
TRUNCATE deals;
--bad
-- airlock: allow no-such-rule because it has no name
SELECT 1;
--good
-- airlock: allow truncate because the rows come again with the next import
TRUNCATE deals;

--# allow-unused
--bad
-- airlock: allow truncate because it was a TRUNCATE yesterday
ALTER TABLE deals ADD COLUMN note text;
--good
ALTER TABLE deals ADD COLUMN note text;
