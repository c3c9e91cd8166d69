--# timestamp-without-time-zone
--bad
CREATE TABLE notes (id bigint PRIMARY KEY, written_at timestamp NOT NULL DEFAULT now());
--bad
ALTER TABLE deals ADD COLUMN closed_at timestamp(3) without time zone;
--good
CREATE TABLE notes (id bigint PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT now());
--good
ALTER TABLE deals ADD COLUMN closed_at timestamp with time zone;

--# json-not-jsonb
--bad
ALTER TABLE deals ADD COLUMN details json;
--good
ALTER TABLE deals ADD COLUMN details jsonb;

--# char-padded
--bad
CREATE TABLE notes (id bigint PRIMARY KEY, currency char(3));
--good
CREATE TABLE notes (id bigint PRIMARY KEY, currency text, flag "char");

--# key-32-bit
--bad
CREATE TABLE notes (id serial PRIMARY KEY, note text);
--bad
CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, note text);
--bad
CREATE TABLE notes (
    id integer NOT NULL,
    note text,
    PRIMARY KEY (id)
);
--good
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pages int);
--good
CREATE TABLE notes (id uuid PRIMARY KEY, n bigserial);

--# identifier-too-long
--bad
CREATE INDEX CONCURRENTLY idx_deals_on_announced_on_and_expected_close_on_and_target_ticker ON deals (a);
--good
SELECT 'a_string_may_be_as_long_as_it_likes_and_is_not_cut_by_postgresql_at_all';
