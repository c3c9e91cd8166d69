-- The database on which each form of forms.sql is tried: one of each kind of thing.
CREATE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE PROCEDURE work() LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE TYPE stage AS ENUM ('open', 'won', 'lost');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int;
CREATE DOMAIN checked AS int CHECK (VALUE > 0);
CREATE SEQUENCE numbers;

CREATE TABLE companies (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE deals (
    id bigint PRIMARY KEY,
    company bigint,
    title varchar(100),
    code char(4),
    amount numeric(12, 2),
    small int,
    stage stage,
    noted timestamp,
    at timestamptz,
    note text,
    tags jsonb,
    span int4range,
    counted int NOT NULL DEFAULT 0
);
CREATE INDEX deals_small ON deals (small);
CREATE INDEX deals_title ON deals (title);
CREATE UNIQUE INDEX deals_note ON deals (note);
CREATE TABLE notes (id serial PRIMARY KEY, deal bigint CONSTRAINT notes_deal REFERENCES deals, body text);
CREATE INDEX notes_of_deal ON notes (deal);
CREATE TABLE prices (id int PRIMARY KEY, value positive);
CREATE TABLE pairs (id int, inside pair);
CREATE TABLE typed OF pair;
CREATE TABLE plain (id int, a int, b text);
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY, a int);
CREATE TABLE watched (id int PRIMARY KEY, a int);
CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE guarded (id int PRIMARY KEY, owner text);
CREATE POLICY own ON guarded USING (owner = current_user);
CREATE TABLE ruled (id int PRIMARY KEY, a int);
CREATE RULE never AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE checks (
    id int PRIMARY KEY,
    a int,
    b int CONSTRAINT checks_b CHECK (b > 0),
    c int,
    CONSTRAINT checks_a_there CHECK (a IS NOT NULL)
);
ALTER TABLE checks ADD CONSTRAINT checks_c_there CHECK (c IS NOT NULL) NOT VALID;
CREATE TABLE identities (id int GENERATED ALWAYS AS IDENTITY, a int NOT NULL, g int GENERATED ALWAYS AS (a + 1) STORED);
CREATE TABLE base (id int, a int);
CREATE TABLE derived (extra text) INHERITS (base);
CREATE TABLE loose (id int, a int);

CREATE TABLE events (id int NOT NULL, at date NOT NULL, kind text) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE INDEX events_kind ON events (kind);
CREATE TABLE events_2026 (id int NOT NULL, at date NOT NULL, kind text);
CREATE INDEX events_2026_kind ON events_2026 (kind);
CREATE TABLE rest (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE rest_2024 PARTITION OF rest FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE rest_other PARTITION OF rest DEFAULT;

CREATE VIEW open_deals AS SELECT id, title FROM deals WHERE stage = 'open';
CREATE VIEW titles AS SELECT title FROM open_deals;
CREATE MATERIALIZED VIEW sums AS SELECT company, sum(amount) AS total FROM deals GROUP BY company;
CREATE UNIQUE INDEX sums_company ON sums (company);

CREATE ROLE effects_reader;
CREATE STATISTICS deals_both ON company, small FROM deals;

INSERT INTO companies SELECT n, 'company ' || n FROM generate_series(1, 500) AS n;
INSERT INTO deals (id, company, title, code, amount, small, stage, noted, at, note)
    SELECT n, n % 500 + 1, 'title ' || n, 'x', n, n, 'open', now(), now(), 'note ' || n
    FROM generate_series(1, 20000) AS n;
INSERT INTO notes (deal, body) SELECT n, 'body' FROM generate_series(1, 20000) AS n;
INSERT INTO prices SELECT n, n FROM generate_series(1, 500) AS n;
INSERT INTO plain SELECT n, n, 'b' FROM generate_series(1, 500) AS n;
INSERT INTO checks SELECT n, n, n, n FROM generate_series(1, 500) AS n;
INSERT INTO identities (a) SELECT n FROM generate_series(1, 500) AS n;
INSERT INTO events SELECT n, date '2024-01-01' + n, 'kind' FROM generate_series(1, 700) AS n;
INSERT INTO events_2026 SELECT n, date '2026-01-01' + n, 'kind' FROM generate_series(1, 300) AS n;
REFRESH MATERIALIZED VIEW sums;
