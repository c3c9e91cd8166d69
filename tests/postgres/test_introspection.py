"""What the catalogue and its guard notice on a real server, and what they must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from airlock import binaries, server
from airlock.catalogue import Catalogue, diff, problems
from airlock.introspection import read_catalogue, read_guard
from airlock.postgres import Conn, quote_ident
from tests.conftest import OWNER, Database
from tests.people import connect

READER = "catalogue_reader"

# PostgreSQL renders these anew after it has read its own rendering once.
RENDERED_ANEW = """
CREATE TABLE public.anew (
    a varchar(9) CHECK (a IN ('p', 'q')),
    b varchar CHECK (b NOT IN ('a', 'b') OR length(b) > 3),
    d numeric CHECK (d BETWEEN 1 AND 5 AND d <> 3)
);
CREATE INDEX ON public.anew (a) WHERE a IN ('p', 'q') AND (b = 'x' OR (b = 'y' OR b = 'z'));
CREATE VIEW public.anew_seen AS
    SELECT CASE WHEN a IN ('p', 'q') THEN 1 END AS z, (a, b, d) IS DISTINCT FROM ('p', 'q', 1) AS y
    FROM public.anew WHERE (a IN ('p', 'r') AND d IN (1, 2)) OR NOT (b = 'a' AND d = 2 OR d = 3);
CREATE MATERIALIZED VIEW public.anew_counted AS
    SELECT count(*) FILTER (WHERE a IN ('q', 'r')) FROM public.anew HAVING max(a) IN ('p', 'q');
CREATE POLICY anew_p ON public.anew USING (a IN ('p', 'q')) WITH CHECK (a <> ALL (ARRAY['x', 'y']));
CREATE RULE anew_r AS ON DELETE TO public.anew WHERE old.a IN ('p', 'q') DO INSTEAD NOTHING;
CREATE FUNCTION public.anew_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER anew_t AFTER UPDATE ON public.anew FOR EACH ROW
    WHEN ((old.a, old.b, old.d) IS DISTINCT FROM (new.a, new.b, new.d))
    EXECUTE FUNCTION public.anew_f();
CREATE DOMAIN public.anew_d AS varchar CHECK (VALUE IN ('a', 'b') AND length(VALUE) > 0);
"""

BASE = """
CREATE SCHEMA app;
CREATE TYPE public.deal_status AS ENUM ('pending', 'active');
CREATE DOMAIN public.ticker AS text DEFAULT 'X' CONSTRAINT short CHECK (length(VALUE) < 10);
CREATE TYPE public.address AS (street text, town text);
CREATE TYPE public.span AS RANGE (subtype = numeric);
CREATE SEQUENCE public.counter;
CREATE TABLE public.deals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status text NOT NULL DEFAULT 'a',
    price numeric(12,2),
    doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
    note text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT positive CHECK (price > 0)
);
CREATE TABLE public.halts (
    id serial PRIMARY KEY,
    deal_id bigint NOT NULL,
    CONSTRAINT fk_deal FOREIGN KEY (deal_id) REFERENCES public.deals (id) ON DELETE CASCADE
);
CREATE INDEX deals_status ON public.deals (status);
CREATE INDEX deals_lower ON public.deals (lower(status));
CREATE TABLE public.events (id int, day date NOT NULL) PARTITION BY RANGE (day);
CREATE INDEX events_id ON public.events (id);
CREATE TABLE public.events_2025 PARTITION OF public.events
    FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.events_2026 (id int, day date NOT NULL);
CREATE TABLE public.parent (a int);
CREATE TABLE public.child (b int) INHERITS (public.parent);
CREATE TABLE public."Odd.Na""me é" ("Sel ect" int, "b.c" text);
CREATE VIEW public.active AS SELECT id, status FROM public.deals;
CREATE MATERIALIZED VIEW public.totals AS SELECT status, count(*) AS n FROM public.deals GROUP BY 1;
CREATE FUNCTION public.score(a integer) RETURNS integer LANGUAGE sql AS 'SELECT a';
CREATE PROCEDURE public.tidy() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION public.spell(public.address) RETURNS text LANGUAGE sql AS 'SELECT $1.street';
CREATE FUNCTION public.alike(public.address, public.address) RETURNS boolean
    LANGUAGE sql AS 'SELECT $1.town = $2.town';
CREATE AGGREGATE public.total (integer) (sfunc = int4pl, stype = integer);
CREATE TRIGGER touched BEFORE UPDATE ON public.deals FOR EACH ROW EXECUTE FUNCTION public.touch();
CREATE RULE quiet AS ON DELETE TO public.parent DO INSTEAD NOTHING;
CREATE POLICY mine ON public.deals USING (status = 'a');
CREATE STATISTICS public.pair ON status, note FROM public.deals;
CREATE PUBLICATION feed FOR TABLE public.halts;
COMMENT ON TABLE public.deals IS 'Deals';
INSERT INTO public.deals (price) SELECT n FROM generate_series(1, 100) AS n;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """DDL that changes the schema, the object that must be named, and what undoes it."""

    forward: str
    key: str
    reverse: str
    since: int = 13


def case(key: str, forward: str, reverse: str, since: int = 13) -> Case:
    return Case(forward=forward, key=key, reverse=reverse, since=since)


def altered(key: str, table: str, forward: str, reverse: str, since: int = 13) -> Case:
    start = f"ALTER TABLE public.{table} "
    return case(key, start + forward, start + reverse, since)


STATUS = "column public.deals.status"
NOTE = "column public.deals.note"
DEALS = "table public.deals"

CASES = (
    # Tables.
    case("table public.t", "CREATE TABLE public.t (a int)", "DROP TABLE public.t"),
    case(
        "table public.trades",
        "ALTER TABLE public.deals RENAME TO trades",
        "ALTER TABLE public.trades RENAME TO deals",
    ),
    case(
        "table app.halts",
        "ALTER TABLE public.halts SET SCHEMA app",
        "ALTER TABLE app.halts SET SCHEMA public",
    ),
    altered(DEALS, "deals", "SET (fillfactor = 70)", "RESET (fillfactor)"),
    altered(
        DEALS,
        "deals",
        "SET (toast.autovacuum_enabled = off)",
        "RESET (toast.autovacuum_enabled)",
    ),
    altered("table public.child", "child", "SET UNLOGGED", "SET LOGGED"),
    altered(DEALS, "deals", "ENABLE ROW LEVEL SECURITY", "DISABLE ROW LEVEL SECURITY"),
    altered(DEALS, "deals", "FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"),
    altered(DEALS, "deals", "REPLICA IDENTITY FULL", "REPLICA IDENTITY DEFAULT"),
    altered(
        "index public.deals_pkey",
        "deals",
        "REPLICA IDENTITY USING INDEX deals_pkey",
        "REPLICA IDENTITY DEFAULT",
    ),
    altered(DEALS, "deals", "OWNER TO catalogue_reader", "OWNER TO CURRENT_USER"),
    case(
        DEALS,
        "GRANT SELECT ON public.deals TO catalogue_reader",
        "REVOKE SELECT ON public.deals FROM catalogue_reader",
    ),
    case(
        DEALS, "COMMENT ON TABLE public.deals IS 'New'", "COMMENT ON TABLE public.deals IS 'Deals'"
    ),
    # INHERIT alone would leave the child's column its own, out of reach of the parent's DROP.
    case(
        "table public.child",
        "ALTER TABLE public.child NO INHERIT public.parent",
        "DROP TABLE public.child; CREATE TABLE public.child (b int) INHERITS (public.parent)",
    ),
    # Partitions.
    altered(
        "table public.events_2025",
        "events",
        "DETACH PARTITION public.events_2025",
        "ATTACH PARTITION public.events_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    ),
    case(
        "table public.events_rest",
        "CREATE TABLE public.events_rest PARTITION OF public.events DEFAULT",
        "DROP TABLE public.events_rest",
    ),
    # Columns.
    altered("column public.deals.x", "deals", "ADD x text", "DROP x"),
    altered("column public.deals.memo", "deals", "RENAME note TO memo", "RENAME memo TO note"),
    altered(
        "column public.child.b",
        "child",
        "ALTER b TYPE bigint",
        "ALTER b TYPE integer",
    ),
    altered(STATUS, "deals", "ALTER status SET DEFAULT 'b'", "ALTER status SET DEFAULT 'a'"),
    altered(STATUS, "deals", "ALTER status DROP NOT NULL", "ALTER status SET NOT NULL"),
    altered("column public.child.b", "child", "ALTER b SET NOT NULL", "ALTER b DROP NOT NULL"),
    altered(
        "column public.deals.id",
        "deals",
        "ALTER id SET GENERATED BY DEFAULT",
        "ALTER id SET GENERATED ALWAYS",
    ),
    altered(
        "column public.deals.doubled",
        "deals",
        "DROP doubled, ADD doubled numeric GENERATED ALWAYS AS (price * 3) STORED",
        "DROP doubled, ADD doubled numeric GENERATED ALWAYS AS (price * 2) STORED",
    ),
    altered(NOTE, "deals", 'ALTER note TYPE text COLLATE "C"', "ALTER note TYPE text"),
    altered(NOTE, "deals", "ALTER note SET STORAGE EXTERNAL", "ALTER note SET STORAGE EXTENDED"),
    altered(
        NOTE, "deals", "ALTER note SET COMPRESSION pglz", "ALTER note SET COMPRESSION default", 14
    ),
    altered(NOTE, "deals", "ALTER note SET STATISTICS 500", "ALTER note SET STATISTICS -1"),
    altered(NOTE, "deals", "ALTER note SET (n_distinct = 5)", "ALTER note RESET (n_distinct)"),
    case(
        NOTE,
        "GRANT UPDATE (note) ON public.deals TO catalogue_reader",
        "REVOKE UPDATE (note) ON public.deals FROM catalogue_reader",
    ),
    case(
        NOTE,
        "COMMENT ON COLUMN public.deals.note IS 'free text'",
        "COMMENT ON COLUMN public.deals.note IS NULL",
    ),
    case(
        'column public."Odd.Na""me é"."Sel ect"',
        'ALTER TABLE public."Odd.Na""me é" ALTER "Sel ect" SET DEFAULT 1',
        'ALTER TABLE public."Odd.Na""me é" ALTER "Sel ect" DROP DEFAULT',
    ),
    altered(
        NOTE,
        "deals",
        "ADD CONSTRAINT must_say NOT NULL note NOT VALID",
        "DROP CONSTRAINT must_say",
        18,
    ),
    # Constraints.
    altered(
        "constraint public.deals.c",
        "deals",
        "ADD CONSTRAINT c CHECK (price < 1000000)",
        "DROP CONSTRAINT c",
    ),
    altered(
        "constraint public.deals.n",
        "deals",
        "ADD CONSTRAINT n CHECK (price < 1000000) NOT VALID",
        "DROP CONSTRAINT n",
    ),
    altered(
        "constraint public.deals.u",
        "deals",
        "ADD CONSTRAINT u UNIQUE (status, price)",
        "DROP CONSTRAINT u",
    ),
    altered(
        "constraint public.deals.e",
        "deals",
        "ADD CONSTRAINT e EXCLUDE USING btree (price WITH =)",
        "DROP CONSTRAINT e",
    ),
    altered(
        "constraint public.halts.fk_deal",
        "halts",
        "ALTER CONSTRAINT fk_deal DEFERRABLE INITIALLY DEFERRED",
        "ALTER CONSTRAINT fk_deal NOT DEFERRABLE",
    ),
    altered(
        "constraint public.halts.fk_deal",
        "halts",
        "DROP CONSTRAINT fk_deal",
        "ADD CONSTRAINT fk_deal FOREIGN KEY (deal_id) REFERENCES public.deals ON DELETE CASCADE",
    ),
    altered(
        "constraint public.halts.fk_deal", "halts", "DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL"
    ),
    altered(
        "constraint public.deals.above",
        "deals",
        "RENAME CONSTRAINT positive TO above",
        "RENAME CONSTRAINT above TO positive",
    ),
    case(
        "constraint public.deals.positive",
        "COMMENT ON CONSTRAINT positive ON public.deals IS 'c'",
        "COMMENT ON CONSTRAINT positive ON public.deals IS NULL",
    ),
    # Indexes.
    case("index public.i", "CREATE INDEX i ON public.deals (note)", "DROP INDEX public.i"),
    case(
        "index public.deals_status",
        "DROP INDEX public.deals_status; "
        "CREATE INDEX deals_status ON public.deals (status) WHERE price > 1",
        "DROP INDEX public.deals_status; CREATE INDEX deals_status ON public.deals (status)",
    ),
    case(
        "index public.deals_status",
        "ALTER INDEX public.deals_status SET (fillfactor = 50)",
        "ALTER INDEX public.deals_status RESET (fillfactor)",
    ),
    case(
        "index public.deals_lower",
        "ALTER INDEX public.deals_lower ALTER COLUMN 1 SET STATISTICS 10",
        "ALTER INDEX public.deals_lower ALTER COLUMN 1 SET STATISTICS -1",
    ),
    altered("index public.deals_status", "deals", "CLUSTER ON deals_status", "SET WITHOUT CLUSTER"),
    case(
        "index public.deals_status",
        "COMMENT ON INDEX public.deals_status IS 'c'",
        "COMMENT ON INDEX public.deals_status IS NULL",
    ),
    # Views.
    case(
        "view public.active",
        "CREATE OR REPLACE VIEW public.active AS SELECT id, status FROM public.deals WHERE id > 1",
        "CREATE OR REPLACE VIEW public.active AS SELECT id, status FROM public.deals",
    ),
    case(
        "view public.active",
        "ALTER VIEW public.active SET (security_barrier = on)",
        "ALTER VIEW public.active RESET (security_barrier)",
    ),
    case(
        "materialized view public.totals",
        "DROP MATERIALIZED VIEW public.totals; CREATE MATERIALIZED VIEW public.totals AS "
        "SELECT status, count(*) AS n FROM public.deals GROUP BY 1 WITH NO DATA",
        "REFRESH MATERIALIZED VIEW public.totals",
    ),
    # Routines.
    case(
        "function public.score(integer)",
        "CREATE OR REPLACE FUNCTION public.score(a integer) RETURNS integer LANGUAGE sql "
        "AS 'SELECT a + 1'",
        "CREATE OR REPLACE FUNCTION public.score(a integer) RETURNS integer LANGUAGE sql "
        "AS 'SELECT a'",
    ),
    case(
        "function public.score(integer)",
        "ALTER FUNCTION public.score STABLE SECURITY DEFINER SET search_path = app",
        "ALTER FUNCTION public.score VOLATILE SECURITY INVOKER RESET search_path",
    ),
    case(
        "function public.score(integer)",
        "REVOKE EXECUTE ON FUNCTION public.score FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION public.score TO PUBLIC",
    ),
    case(
        "function public.score(text, app.kind)",
        "CREATE TYPE app.kind AS ENUM (); CREATE FUNCTION public.score(text, app.kind) "
        "RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION public.score(text, app.kind); DROP TYPE app.kind",
    ),
    case(
        "procedure public.tidy()",
        "COMMENT ON PROCEDURE public.tidy IS 'c'",
        "COMMENT ON PROCEDURE public.tidy IS NULL",
    ),
    case(
        "aggregate public.total(integer)",
        "CREATE OR REPLACE AGGREGATE public.total (integer) "
        "(sfunc = int4pl, stype = integer, initcond = '5')",
        "CREATE OR REPLACE AGGREGATE public.total (integer) (sfunc = int4pl, stype = integer)",
    ),
    # Triggers, rules, policies.
    altered(
        "trigger public.deals.touched", "deals", "DISABLE TRIGGER touched", "ENABLE TRIGGER touched"
    ),
    case(
        "trigger public.deals.touched",
        "DROP TRIGGER touched ON public.deals; CREATE TRIGGER touched AFTER UPDATE ON public.deals "
        "FOR EACH ROW EXECUTE FUNCTION public.touch()",
        "DROP TRIGGER touched ON public.deals; CREATE TRIGGER touched BEFORE UPDATE ON "
        "public.deals FOR EACH ROW EXECUTE FUNCTION public.touch()",
    ),
    case(
        "rule public.parent.quiet",
        "CREATE OR REPLACE RULE quiet AS ON DELETE TO public.parent DO ALSO NOTHING",
        "CREATE OR REPLACE RULE quiet AS ON DELETE TO public.parent DO INSTEAD NOTHING",
    ),
    case(
        "policy public.deals.mine",
        "ALTER POLICY mine ON public.deals TO catalogue_reader USING (status = 'b')",
        "ALTER POLICY mine ON public.deals TO PUBLIC USING (status = 'a')",
    ),
    case(
        "event trigger watcher",
        "CREATE EVENT TRIGGER watcher ON sql_drop WHEN TAG IN ('DROP TABLE') "
        "EXECUTE FUNCTION public.watch()",
        "DROP EVENT TRIGGER watcher",
    ),
    # Types.
    case(
        "enum public.deal_status",
        "ALTER TYPE public.deal_status RENAME VALUE 'active' TO 'live'",
        "ALTER TYPE public.deal_status RENAME VALUE 'live' TO 'active'",
    ),
    case(
        "enum public.deal_status",
        "ALTER TYPE public.deal_status ADD VALUE 'closed' BEFORE 'active'",
        "DROP TYPE public.deal_status; "
        "CREATE TYPE public.deal_status AS ENUM ('pending', 'active')",
    ),
    case(
        "domain public.ticker",
        "ALTER DOMAIN public.ticker SET DEFAULT 'Y'",
        "ALTER DOMAIN public.ticker SET DEFAULT 'X'",
    ),
    case(
        "domain public.ticker",
        "ALTER DOMAIN public.ticker SET NOT NULL",
        "ALTER DOMAIN public.ticker DROP NOT NULL",
    ),
    case(
        "constraint public.ticker.upper",
        "ALTER DOMAIN public.ticker ADD CONSTRAINT upper CHECK (VALUE = upper(VALUE))",
        "ALTER DOMAIN public.ticker DROP CONSTRAINT upper",
    ),
    case(
        "attribute public.address.zip",
        "ALTER TYPE public.address ADD ATTRIBUTE zip text",
        "ALTER TYPE public.address DROP ATTRIBUTE zip",
    ),
    case(
        "composite type public.address",
        "GRANT USAGE ON TYPE public.address TO catalogue_reader; "
        "COMMENT ON TYPE public.address IS 'c'",
        "REVOKE USAGE ON TYPE public.address FROM catalogue_reader; "
        "COMMENT ON TYPE public.address IS NULL",
    ),
    case(
        "range type public.span",
        "DROP TYPE public.span; CREATE TYPE public.span AS RANGE (subtype = integer)",
        "DROP TYPE public.span; CREATE TYPE public.span AS RANGE (subtype = numeric)",
    ),
    case(
        "base type public.raw",
        "CREATE TYPE public.raw; CREATE FUNCTION public.raw_in(cstring) RETURNS public.raw "
        "LANGUAGE internal IMMUTABLE STRICT AS 'int4in'; "
        "CREATE FUNCTION public.raw_out(public.raw) RETURNS cstring "
        "LANGUAGE internal IMMUTABLE STRICT AS 'int4out'; "
        "CREATE TYPE public.raw (input = public.raw_in, output = public.raw_out, like = integer)",
        "DROP TYPE public.raw CASCADE",
    ),
    # Sequences.
    case(
        "sequence public.counter",
        "ALTER SEQUENCE public.counter INCREMENT 5 CACHE 10 CYCLE",
        "ALTER SEQUENCE public.counter INCREMENT 1 CACHE 1 NO CYCLE",
    ),
    case(
        "sequence public.counter",
        "ALTER SEQUENCE public.counter OWNED BY public.deals.price",
        "ALTER SEQUENCE public.counter OWNED BY NONE",
    ),
    # The rest.
    case("schema extra", "CREATE SCHEMA extra", "DROP SCHEMA extra"),
    case(
        "schema app",
        "GRANT USAGE ON SCHEMA app TO catalogue_reader",
        "REVOKE USAGE ON SCHEMA app FROM catalogue_reader",
    ),
    case(
        "default privileges of catalogue_reader IN SCHEMA app ON tables",
        "ALTER DEFAULT PRIVILEGES FOR ROLE catalogue_reader IN SCHEMA app "
        "GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE catalogue_reader IN SCHEMA app "
        "REVOKE SELECT ON TABLES FROM PUBLIC",
    ),
    case(
        "extension plpgsql",
        "COMMENT ON EXTENSION plpgsql IS 'c'",
        "COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language'",
    ),
    case(
        "cast (public.address AS text)",
        "CREATE CAST (public.address AS text) WITH FUNCTION public.spell(public.address)",
        "DROP CAST (public.address AS text)",
    ),
    case(
        "operator public.=~=(public.address, public.address)",
        "CREATE OPERATOR public.=~= (leftarg = public.address, rightarg = public.address, "
        "function = public.alike)",
        "DROP OPERATOR public.=~= (public.address, public.address)",
    ),
    case(
        "operator class public.by_number USING btree",
        "CREATE OPERATOR CLASS public.by_number FOR TYPE integer USING btree AS "
        "OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 btint4cmp(integer, integer)",
        "DROP OPERATOR FAMILY public.by_number USING btree",
    ),
    case(
        "collation public.plain",
        'CREATE COLLATION public.plain FROM "C"',
        "DROP COLLATION public.plain",
    ),
    case(
        "conversion public.odd",
        "CREATE CONVERSION public.odd FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        "DROP CONVERSION public.odd",
    ),
    case(
        "publication feed",
        "ALTER PUBLICATION feed ADD TABLE public.deals",
        "ALTER PUBLICATION feed DROP TABLE public.deals",
    ),
    case(
        "publication feed",
        "ALTER PUBLICATION feed SET TABLE public.halts (id) WHERE (id > 5)",
        "ALTER PUBLICATION feed SET TABLE public.halts",
        15,
    ),
    case(
        "publication feed",
        "ALTER PUBLICATION feed SET (publish = 'insert')",
        "ALTER PUBLICATION feed SET (publish = 'insert, update, delete, truncate')",
    ),
    case(
        "foreign data wrapper far",
        "CREATE FOREIGN DATA WRAPPER far OPTIONS (a 'b')",
        "DROP FOREIGN DATA WRAPPER far",
    ),
    case(
        "foreign table public.distant",
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER there FOREIGN DATA WRAPPER far; "
        "CREATE FOREIGN TABLE public.distant (a int OPTIONS (c 'd')) SERVER there OPTIONS (e 'f')",
        "DROP FOREIGN DATA WRAPPER far CASCADE",
    ),
    case(
        "statistics public.pair",
        "ALTER STATISTICS public.pair SET STATISTICS 50",
        "ALTER STATISTICS public.pair SET STATISTICS -1",
    ),
    case(
        "text search configuration public.words",
        "CREATE TEXT SEARCH CONFIGURATION public.words (COPY = simple)",
        "DROP TEXT SEARCH CONFIGURATION public.words",
    ),
    case(
        "text search dictionary public.plain",
        "CREATE TEXT SEARCH DICTIONARY public.plain (TEMPLATE = simple, accept = false)",
        "DROP TEXT SEARCH DICTIONARY public.plain",
    ),
    case(
        "access method mine",
        "CREATE ACCESS METHOD mine TYPE INDEX HANDLER bthandler",
        "DROP ACCESS METHOD mine",
    ),
    case(
        "transform FOR public.address LANGUAGE plpgsql",
        "CREATE FUNCTION public.from_sql(internal) RETURNS internal LANGUAGE internal IMMUTABLE "
        "AS 'int4in'; CREATE TRANSFORM FOR public.address LANGUAGE plpgsql "
        "(FROM SQL WITH FUNCTION public.from_sql(internal))",
        "DROP TRANSFORM FOR public.address LANGUAGE plpgsql; DROP FUNCTION public.from_sql",
    ),
)

# Leaves the schema as it was. The second value: whether the guard may tell the difference.
HARMLESS = (
    ("ANALYZE", False),
    ("INSERT INTO public.deals (price) VALUES (1), (2)", False),
    ("UPDATE public.deals SET note = 'x'; DELETE FROM public.halts", False),
    ("SELECT nextval('public.counter'), setval('public.halts_id_seq', 99)", False),
    ("CREATE TEMP TABLE deals (a int PRIMARY KEY, b text); ANALYZE deals", False),
    ("CREATE TEMP VIEW seen AS SELECT 1 AS a", False),
    (
        (
            "CREATE SCHEMA airlock; CREATE TYPE airlock.s AS ENUM ('a'); "
            "CREATE TABLE airlock.deploy (id serial PRIMARY KEY, s airlock.s DEFAULT 'a', t text); "
            "ALTER TABLE airlock.deploy ADD CHECK (t <> ''); "
            "COMMENT ON TABLE airlock.deploy IS 'c'; COMMENT ON SCHEMA airlock IS 'c'; "
            "CREATE FUNCTION airlock.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        ),
        True,
    ),
    (
        (
            "ALTER TABLE public.deals DROP created_at, "
            "ADD created_at timestamptz NOT NULL DEFAULT now()"
        ),
        True,
    ),
    (
        (
            "ALTER TABLE public.deals DROP status CASCADE, ADD status text NOT NULL DEFAULT 'a'; "
            "CREATE INDEX deals_status ON public.deals (status);"
            "CREATE INDEX deals_lower ON public.deals (lower(status));"
            "CREATE VIEW public.active AS SELECT id, status FROM public.deals;"
            "CREATE POLICY mine ON public.deals USING (status = 'a');"
            "CREATE MATERIALIZED VIEW public.totals AS "
            "SELECT status, count(*) AS n FROM public.deals GROUP BY 1;"
            "CREATE STATISTICS public.pair ON status, note FROM public.deals"
        ),
        True,
    ),
    ("REINDEX TABLE public.deals", True),
    ("TRUNCATE public.deals CASCADE", True),
    ("REFRESH MATERIALIZED VIEW public.totals", True),
    ("CREATE TABLE public.t (a int); DROP TABLE public.t", True),
    (
        (
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO catalogue_reader; "
            "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM catalogue_reader"
        ),
        True,
    ),
    (
        (
            "SET LOCAL search_path = app, public; SET LOCAL DateStyle = 'SQL, DMY'; "
            "SET LOCAL IntervalStyle = 'sql_standard'; SET LOCAL quote_all_identifiers = on; "
            "SET LOCAL extra_float_digits = 0; SET LOCAL bytea_output = 'escape'; "
            "SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL standard_conforming_strings = off"
        ),
        False,
    ),
)


@asynccontextmanager
async def created(on: server.Server, name: str, ddl: str) -> AsyncIterator[str]:
    """A database with this schema, as its URL."""
    url = on.url(name)
    async with connect(on.url()) as superuser:
        await superuser.execute(f"DROP DATABASE IF EXISTS {quote_ident(name)} WITH (FORCE)")
        await superuser.execute(f"CREATE DATABASE {quote_ident(name)} TEMPLATE template0")
        if not await superuser.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", READER):
            await superuser.execute("CREATE ROLE catalogue_reader LOGIN")
    async with connect(url) as conn:
        await conn.execute(ddl)
    yield url
    async with connect(on.url()) as superuser:
        await superuser.execute(f"DROP DATABASE {quote_ident(name)} WITH (FORCE)")


@pytest.fixture(scope="module")
async def base_url(pg: server.Server) -> AsyncIterator[str]:
    async with created(pg, "catalogue_base", BASE) as url:
        yield url


@pytest.fixture(scope="module")
async def base(base_url: str) -> AsyncIterator[Conn]:
    """A connection to the base schema. Tests roll back what they do."""
    async with connect(base_url) as conn:
        yield conn


@pytest.fixture(scope="module")
async def base_read(base: Conn) -> tuple[Catalogue, str]:
    """The catalogue and the guard of the base schema, to which every test returns."""
    return await read_catalogue(base), await read_guard(base)


@asynccontextmanager
async def undone(conn: Conn) -> AsyncIterator[None]:
    """What happens in here is rolled back."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def touched(before: Catalogue, after: Catalogue) -> set[str]:
    found = diff(before, after)
    return {*found.added, *found.removed, *(change.key for change in found.changed)}


async def check(conn: Conn, claim: Case, before: Catalogue, guard: str) -> None:
    async with undone(conn):
        await conn.execute(claim.forward)
        after = await read_catalogue(conn)
        assert claim.key in touched(before, after), diff(before, after).render()
        assert after.fingerprint != before.fingerprint
        assert await read_guard(conn) != guard, "the guard missed it"
        await conn.execute(claim.reverse)
        again = await read_catalogue(conn)
        assert again.fingerprint == before.fingerprint, diff(before, again).render()


@pytest.mark.parametrize("claim", CASES, ids=lambda claim: claim.forward[:60])
async def test_a_change_of_schema_is_named_and_its_inverse_brings_the_fingerprint_back(
    base: Conn, base_read: tuple[Catalogue, str], claim: Case
) -> None:
    if base.get_server_version().major < claim.since:
        pytest.skip(f"PostgreSQL {claim.since} and later")
    await check(base, claim, *base_read)


@pytest.mark.parametrize(("sql", "guard_may_differ"), HARMLESS, ids=lambda value: str(value)[:60])
async def test_what_is_not_schema_does_not_change_the_fingerprint(
    base: Conn, base_read: tuple[Catalogue, str], sql: str, guard_may_differ: bool
) -> None:
    before, guard = base_read
    async with undone(base):
        await base.execute(sql)
        after = await read_catalogue(base)
        assert after.fingerprint == before.fingerprint, diff(before, after).render()
        if not guard_may_differ:
            assert await read_guard(base) == guard


@pytest.mark.parametrize("major", [16, 18])
async def test_every_claim_holds_on_the_other_versions(
    pg_of: Callable[[int | None], Awaitable[server.Server]], major: int
) -> None:
    broken: list[str] = []
    async with created(await pg_of(major), "catalogue_base", BASE) as url, connect(url) as conn:
        before, guard = await read_catalogue(conn), await read_guard(conn)
        for claim in CASES:
            try:
                if claim.since <= major:
                    await check(conn, claim, before, guard)
            except (AssertionError, asyncpg.PostgresError) as error:
                broken.append(f"{claim.forward}: {error}")
        for sql, _ in HARMLESS:
            async with undone(conn):
                await conn.execute(sql)
                broken += [f"{sql}: {key}" for key in touched(before, await read_catalogue(conn))]
        await conn.execute("VACUUM (ANALYZE, FREEZE)")
        assert await read_guard(conn) == guard
    assert broken == []


async def test_vacuum_and_analyze_change_neither_fingerprint_nor_guard(base: Conn) -> None:
    before, guard = await read_catalogue(base), await read_guard(base)
    await base.execute("VACUUM (ANALYZE, FREEZE)")
    assert (await read_catalogue(base)).fingerprint == before.fingerprint
    assert await read_guard(base) == guard


async def test_the_guard_sees_two_changes_of_one_row_in_one_transaction(base: Conn) -> None:
    async with undone(base):
        await base.execute("ALTER TABLE public.deals SET (fillfactor = 70)")
        first = await read_guard(base)
        await base.execute("ALTER TABLE public.deals SET (fillfactor = 80)")
        assert await read_guard(base) != first


async def test_the_guard_sees_a_role_renamed(base: Conn) -> None:
    guard = await read_guard(base)
    async with undone(base):
        await base.execute("ALTER ROLE catalogue_reader RENAME TO catalogue_writer")
        assert await read_guard(base) != guard


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"])
async def test_a_transaction_of_the_caller_is_left_as_it_was(base: Conn, begin: str) -> None:
    await base.execute(f"{begin}; SET LOCAL search_path = app; CREATE TABLE public.mine (a int)")
    try:
        found = await read_catalogue(base)
        assert "table public.mine" in found.objects
        assert await base.fetchval("SHOW search_path") == "app"
        await base.execute("CREATE TABLE public.writable (a int)")
    finally:
        await base.execute("ROLLBACK")
    assert await base.fetchval("SHOW jit") == "on"


async def test_the_session_is_left_as_it_was(base: Conn) -> None:
    await base.execute("SET search_path = app")
    try:
        await read_catalogue(base)
        assert not base.is_in_transaction()
        assert await base.fetchval("SHOW search_path") == "app"
    finally:
        await base.execute("RESET search_path")


async def test_an_ordinary_role_sees_what_the_superuser_sees(pg: server.Server, base: Conn) -> None:
    async with connect(pg.url("catalogue_base", READER)) as reader:
        seen = await read_catalogue(reader)
        assert diff(await read_catalogue(base), seen).render() == ""
        assert await read_guard(reader) == await read_guard(base)


async def test_the_same_ddl_on_another_server_has_the_same_fingerprint(
    pg: server.Server, base: Conn
) -> None:
    # Other OIDs: something else was there first.
    ddl = f"CREATE TABLE gone (a serial); DROP TABLE gone; {BASE}"
    async with created(pg, "catalogue_twin", ddl) as url, connect(url) as conn:
        assert diff(await read_catalogue(base), await read_catalogue(conn)).render() == ""


@pytest.mark.parametrize("major", [None, 18])
async def test_a_dump_restored_elsewhere_has_the_same_fingerprint(
    pg_of: Callable[[int | None], Awaitable[server.Server]], major: int | None, tmp_path: Path
) -> None:
    on, found, dump = await pg_of(major), binaries.find(major=major), str(tmp_path / "base.dump")
    async with created(on, "catalogue_dumped", BASE + RENDERED_ANEW) as url, connect(url) as conn:
        before = await read_catalogue(conn)
        await run(str(found.tool("pg_dump")), "-Fc", "-f", dump, url)
    async with created(on, "catalogue_restored", "SELECT 1") as url, connect(url) as conn:
        await run(str(found.tool("pg_restore")), "--exit-on-error", "-d", url, dump)
        assert diff(before, await read_catalogue(conn)).render() == ""


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def test_what_belongs_to_an_extension_is_left_out(base: Conn) -> None:
    names = (await read_catalogue(base)).objects
    assert "extension plpgsql" in names
    assert not [key for key in names if "plpgsql_" in key]


async def test_odd_names_stay_apart_and_are_kept_raw(base: Conn) -> None:
    found = await read_catalogue(base)
    assert ("public", 'Odd.Na"me é') in found.tables
    assert found.columns("public", 'Odd.Na"me é') == ("Sel ect", "b.c")
    for schema, name in found.tables:
        table = quote_ident(schema, name)
        columns = ", ".join(quote_ident(column) for column in found.columns(schema, name))
        await base.fetch(f"SELECT {columns} FROM {table} LIMIT 1")


async def test_partitions_hold_the_rows_of_a_partitioned_table(base: Conn) -> None:
    found = await read_catalogue(base)
    assert {("public", "events"), ("public", "events_2025")} <= set(found.tables)
    assert ("public", "events") not in found.stores
    assert ("public", "events_2025") in found.stores


async def test_a_failed_concurrent_index_and_an_unvalidated_constraint_are_problems(
    pg: server.Server,
) -> None:
    ddl = (
        "CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1), (1);"
        "ALTER TABLE public.t ADD CONSTRAINT c CHECK (a > 0) NOT VALID"
    )
    async with created(pg, "catalogue_problems", ddl) as url, connect(url) as conn:
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON public.t (a)")
        first, second = problems(await read_catalogue(conn))
        assert first.startswith("constraint public.t.c is not validated")
        assert second.startswith("index public.i is invalid")
        await conn.execute("DROP INDEX i; ALTER TABLE t VALIDATE CONSTRAINT c")
        assert problems(await read_catalogue(conn)) == ()


@pytest.mark.parametrize("made", ["FOREIGN DATA WRAPPER", "SERVER", "FOREIGN TABLE", "column"])
async def test_options_in_another_order_are_no_difference(database: Database, made: str):
    """pg_dump writes them in the order of their names."""
    given = dict.fromkeys(("FOREIGN DATA WRAPPER", "SERVER", "FOREIGN TABLE"), "(a '1', b '2')")
    given["column"] = given["SERVER"]
    found: list[Catalogue] = []
    for options in ("(a '1', b '2')", "(b '2', a '1')"):
        given[made] = options
        async with connect(database.superuser_url) as conn:
            await conn.execute(
                f"CREATE FOREIGN DATA WRAPPER far OPTIONS {given['FOREIGN DATA WRAPPER']};"
                f"CREATE SERVER there FOREIGN DATA WRAPPER far OPTIONS {given['SERVER']};"
                f"CREATE FOREIGN TABLE away (id int OPTIONS {given['column']}) SERVER there"
                f" OPTIONS {given['FOREIGN TABLE']}"
            )
            found.append(await read_catalogue(conn))
            await conn.execute("DROP FOREIGN DATA WRAPPER far CASCADE")
    assert diff(*found).is_empty


# ---------------------------------------------------------------- what older ledgers hold

STORED = """
SET search_path = public;
CREATE TYPE stage AS ENUM ('lead', 'signed');
CREATE DOMAIN score AS numeric(5, 2) CHECK (VALUE >= 0);
CREATE TABLE deals (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    stage stage DEFAULT 'lead' NOT NULL,
    score score CHECK (score < 100),
    note text DEFAULT upper('x'::text),
    at timestamptz DEFAULT now()
);
CREATE TABLE parts (deal bigint REFERENCES deals, n int) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE INDEX deals_upper ON deals (upper(note)) WHERE score IS NOT NULL;
CREATE FUNCTION total(deals) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1.score + 1';
CREATE VIEW signed AS SELECT d.id, total(d) FROM deals AS d WHERE stage = 'signed';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON deals FOR EACH ROW WHEN (OLD.note <> NEW.note)
    EXECUTE FUNCTION touch();
ALTER TABLE deals ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON deals USING (note = CURRENT_USER);
COMMENT ON TABLE deals IS 'what is sold';
"""
# Of the objects of public, as Airlock read them before its sessions were pinned to pg_catalog.
STORED_FINGERPRINT = "5608cabdb669968278af434077d98765658eed27143cc4519a4378b3bb526835"


@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize("pinned", [True, False])
async def test_what_an_older_airlock_stored_of_a_schema_is_what_is_read_of_it_now(
    pg_of: Callable[[int | None], Awaitable[server.Server]], major: int, pinned: bool
):
    async with created(await pg_of(major), "catalogue_stored", "SELECT") as url:
        async with connect(url) as superuser:
            await superuser.execute(
                f"ALTER SCHEMA public OWNER TO {OWNER}; SET ROLE {OWNER}; {STORED}"
            )
        async with connect(url, pinned=pinned) as conn:
            found = await read_catalogue(conn)
    public = {key: each for key, each in found.objects.items() if each.get("schema") == "public"}
    assert Catalogue(objects=public).fingerprint == STORED_FINGERPRINT
