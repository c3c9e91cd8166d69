"""What a migration's text may do with Airlock's schema: read it, and let others read it."""

from __future__ import annotations

import pytest

from airlock import protection, syntax

CHANGES = r"""
DELETE FROM airlock.deploy
UPDATE airlock.deploy SET state = 'x'
INSERT INTO airlock.event SELECT * FROM x
TRUNCATE x, airlock.kept
LOCK TABLE airlock.deploy
DROP TABLE x, airlock.kept
DROP SCHEMA airlock CASCADE
DROP SCHEMA x, "airlock" CASCADE
CREATE SCHEMA IF NOT EXISTS airlock
ALTER SCHEMA airlock RENAME TO x
ALTER SCHEMA x RENAME TO airlock
ALTER SCHEMA airlock OWNER TO x
ALTER TABLE airlock.deploy ADD c int
ALTER TABLE airlock.deploy RENAME TO d
ALTER TABLE airlock.deploy SET SCHEMA public
ALTER TABLE x SET SCHEMA airlock
CREATE TABLE airlock.x (a int)
CREATE TABLE x (a int REFERENCES airlock.deploy)
ALTER TABLE x ADD FOREIGN KEY (a) REFERENCES airlock.deploy
CREATE TABLE x () INHERITS (airlock.deploy)
CREATE TABLE airlock.x AS SELECT 1
SELECT 1 INTO airlock.x
CREATE INDEX ON airlock.event (at)
CREATE TRIGGER t BEFORE INSERT ON airlock.event EXECUTE FUNCTION f()
DROP TRIGGER t ON airlock.event
CREATE RULE r AS ON INSERT TO airlock.event DO NOTHING
CREATE RULE r AS ON INSERT TO x DO ALSO DELETE FROM airlock.deploy
CREATE POLICY p ON airlock.event
CREATE FUNCTION airlock.f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE PROCEDURE airlock.f() LANGUAGE sql AS 'SELECT 1'
DROP FUNCTION airlock.f()
ALTER FUNCTION airlock.f() OWNER TO x
CREATE TYPE airlock.t AS ENUM ('a')
CREATE TYPE airlock.t AS (a int)
DROP TYPE airlock.t
CREATE DOMAIN airlock.t AS int
CREATE SEQUENCE airlock.s
ALTER SEQUENCE airlock.fence RESTART
SELECT nextval('airlock.fence')
SELECT setval('airlock.fence'::regclass, 1)
SELECT set_config('search_path', 'airlock', false)
SET search_path = airlock
SET search_path TO public, airlock
SET LOCAL search_path = 'airlock'
ALTER ROLE x SET search_path = airlock
ALTER DATABASE x SET search_path = airlock
CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = airlock AS 'SELECT 1'
DO $$BEGIN DELETE FROM airlock.deploy; END$$
DO $$BEGIN DELETE FROM ONLY "airlock" . "deploy"; END$$
DO $$BEGIN EXECUTE 'DROP SCHEMA airlock'; END$$
DO $$BEGIN DROP OWNED BY x; END$$
DO $$BEGIN PERFORM set_config('search_path', 'airlock', true); END$$
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM airlock.deploy; SELECT 1'
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC DELETE FROM airlock.deploy; SELECT 1; END
WITH d AS (DELETE FROM airlock.deploy RETURNING 1) SELECT * FROM d
MERGE INTO airlock.deploy AS d USING x ON true WHEN MATCHED THEN DELETE
GRANT INSERT ON airlock.deploy TO x
GRANT ALL ON airlock.deploy TO x
GRANT SELECT ON airlock.deploy TO x WITH GRANT OPTION
GRANT CREATE ON SCHEMA airlock TO x
GRANT INSERT ON ALL TABLES IN SCHEMA airlock TO x
ALTER DEFAULT PRIVILEGES IN SCHEMA airlock GRANT ALL ON TABLES TO x
DROP OWNED BY x
REASSIGN OWNED BY x TO y
COMMENT ON TABLE airlock.deploy IS 'x'
COMMENT ON SCHEMA airlock IS 'x'
CREATE EXTENSION x SCHEMA airlock
ALTER EXTENSION x SET SCHEMA airlock
CREATE PUBLICATION p FOR TABLE airlock.deploy
CREATE PUBLICATION p FOR TABLES IN SCHEMA airlock
CREATE VIEW airlock.v AS SELECT 1
DROP VIEW airlock.v
CREATE MATERIALIZED VIEW airlock.v AS SELECT 1
REINDEX TABLE airlock.deploy
REINDEX SCHEMA airlock
VACUUM FULL airlock.deploy
CLUSTER airlock.deploy
COPY airlock.deploy FROM '/x'
CREATE STATISTICS airlock.s ON a, b FROM x
CREATE OPERATOR airlock.+ (FUNCTION = f, LEFTARG = int)
CREATE AGGREGATE airlock.a (int) (SFUNC = f, STYPE = int)
ALTER TABLE x ATTACH PARTITION airlock.event DEFAULT
ALTER TABLE x INHERIT airlock.deploy
CREATE TABLE x (LIKE airlock.deploy INCLUDING ALL)
"""
LEAVES = r"""
SELECT * FROM airlock.kept
INSERT INTO deals SELECT k.id FROM airlock.kept AS k JOIN airlock.deploy AS d ON d.id = k.deploy
INSERT INTO deals SELECT 1 FROM airlock.kept WHERE airlock.kept.deploy = 1
UPDATE deals SET a = k.a FROM airlock.kept AS k
DELETE FROM deals USING airlock.kept AS k WHERE k.deploy = 1
MERGE INTO deals AS d USING airlock.kept AS k ON true WHEN MATCHED THEN DELETE
GRANT SELECT ON airlock.kept TO x
GRANT USAGE ON SCHEMA airlock TO x
GRANT SELECT ON ALL TABLES IN SCHEMA airlock TO x
REVOKE SELECT ON airlock.kept FROM x
CREATE VIEW v AS SELECT * FROM airlock.kept
CREATE TABLE x AS SELECT * FROM airlock.kept
DO $$BEGIN PERFORM 1 FROM airlock.kept; /* airlock.toml */ END$$
CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM airlock.kept'
SELECT jsonb_populate_record(NULL::airlock.kept, '{}')
SELECT pg_table_size('airlock.deploy'::regclass)
COMMENT ON COLUMN deals.a IS 'written by airlock. never'
SET search_path = public
CREATE TABLE airlock (id int)
INSERT INTO airlock VALUES (1)
DROP TABLE airlock
DROP FUNCTION airlock(int)
CREATE TABLE x (airlock int PRIMARY KEY, b int, UNIQUE (airlock, b))
ALTER TABLE x ADD FOREIGN KEY (airlock, b) REFERENCES y (airlock, b)
INSERT INTO t (airlock, b) VALUES (1, 2)
ALTER TABLE airlock SET SCHEMA public
CREATE ROLE airlock
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.mark.parametrize("sql", lines(CHANGES))
def test_what_changes_the_ledger_is_seen(sql: str):
    (statement,) = syntax.parse(sql)
    assert protection.problem(statement)


@pytest.mark.parametrize("sql", lines(LEAVES))
def test_what_leaves_the_ledger_alone_passes(sql: str):
    (statement,) = syntax.parse(sql)
    assert protection.problem(statement) == ""
