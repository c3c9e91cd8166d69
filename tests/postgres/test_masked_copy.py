"""Rows that go through the masks from one real database into another, and the proof afterwards."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from airlock import __main__ as command_line
from airlock import masked_copy, masking, server, settings
from airlock.errors import AirlockError, Refused
from airlock.masked_copy import CheckResult, CopyResult
from airlock.masking import Column, Rule, TableMask
from tests.conftest import Database, create_database, drop_database
from tests.patience import PATIENCE_S
from tests.people import connect

KEY = "a key that is long enough"
OTHER_KEY = "another key, as long as that"
WEIRD = '"we""ird table"'
LARGE = 30_000

# Without foreign keys, as pg_dump's pre-data section; those come after the rows.
STRUCTURE = f"""
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN mail AS varchar(80) CHECK (VALUE ~ '@');
CREATE DOMAIN work_mail AS mail NOT NULL;
CREATE TABLE companies (
    id integer GENERATED ALWAYS AS IDENTITY, name varchar(60) NOT NULL, tax_code varchar(8),
    revenue numeric(9,2), staff smallint, share real, state mood, moods mood[]);
CREATE TABLE people (
    id bigint NOT NULL, company varchar(40), email mail, work work_mail, nick varchar(12), bio text,
    tags text[] NOT NULL, profile jsonb, search tsvector, badge uuid, account bigint, photo bytea,
    full_name text, gone text, letter text GENERATED ALWAYS AS (left(full_name, 1)) STORED,
    town char(30), note text);
ALTER TABLE people DROP COLUMN gone;
CREATE TABLE cards (badge uuid PRIMARY KEY);
CREATE TABLE events (id bigint, at date NOT NULL, badge uuid, said text) PARTITION BY RANGE (at);
CREATE TABLE events_old (said text, badge uuid, at date NOT NULL, id bigint);
ALTER TABLE events ATTACH PARTITION events_old FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY LIST (id);
CREATE TABLE events_one PARTITION OF events_new FOR VALUES IN (1);
CREATE TABLE events_rest PARTITION OF events_new DEFAULT;
CREATE TABLE audit_log (id bigint, what text);
CREATE TABLE empty_one (id integer, word text);
CREATE TABLE nothing ();
CREATE TABLE base (word text);
CREATE TABLE child (more text) INHERITS (base);
CREATE SCHEMA sales;
CREATE TABLE sales.{WEIRD} ("a.b" text, "sel ect" integer, "Ünï%s{{0}}" text);
CREATE UNLOGGED TABLE large (id integer, email text);
CREATE SEQUENCE untouched START 7;
CREATE SEQUENCE sales.counted;
"""
# What would not come about if a join did not survive.
AFTERWARDS = """
ALTER TABLE companies ADD PRIMARY KEY (id), ADD UNIQUE (name);
ALTER TABLE people ADD PRIMARY KEY (id), ADD UNIQUE (email),
    ADD CONSTRAINT works_at FOREIGN KEY (company) REFERENCES companies (name),
    ADD CONSTRAINT carries FOREIGN KEY (badge) REFERENCES cards;
ALTER TABLE events ADD CONSTRAINT seen FOREIGN KEY (badge) REFERENCES cards;
"""
ROWS = f"""
INSERT INTO companies (name, tax_code, revenue, staff, share, state, moods)
SELECT 'Company ' || i, 'TX' || i, i * 1000.25, i, i / 7.0, 'glad', '{{sad,glad}}'
  FROM generate_series(1, 20) AS i;
UPDATE companies SET revenue = 0, staff = NULL, share = 'NaN' WHERE id = 1;
UPDATE companies SET revenue = -9999999.99, staff = 32767 WHERE id = 2;
INSERT INTO cards SELECT md5(i::text)::uuid FROM generate_series(1, 50) AS i;
INSERT INTO people (id, company, email, work, nick, bio, tags, profile, search, badge, account,
                    photo, full_name, town, note)
SELECT i, 'Company ' || i % 20 + 1, 'p' || i || '@corp.example',
       'w' || i || '@corp.example', 'nick' || i,
       E'Line one\\nof "Zoë" \\\\ 100% ' || repeat('ü𝄞 ', i), ARRAY['a', 'tag ' || i],
       jsonb_build_object('city', 'Town ' || i), to_tsvector('simple', 'word' || i),
       md5(i::text)::uuid, 1000 + i, decode('00ff', 'hex'), 'Ada Lovelace ' || i, 'Town ' || i,
       'tab\there'
  FROM generate_series(1, 50) AS i;
UPDATE people SET email = NULL, bio = NULL, profile = NULL, full_name = NULL WHERE id = 50;
INSERT INTO events SELECT i % 3, date '2024-07-01' + i * 10, md5((i % 50 + 1)::text)::uuid,
       'said ' || i FROM generate_series(0, 49) AS i;
INSERT INTO audit_log SELECT i, 'what ' || i FROM generate_series(1, 9) AS i;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO base VALUES ('base word');
INSERT INTO child VALUES ('child word', 'more words');
INSERT INTO sales.{WEIRD} VALUES ('secret ' || chr(9), 100, 'kept'), (NULL, NULL, '');
INSERT INTO large SELECT i, 'user' || i || '@big.example' FROM generate_series(1, {LARGE}) AS i;
SELECT setval('sales.counted', 41);
"""
MASK = """
audit_log = "truncate"
[companies]
id = "keep"
name = { rule = "hash", domain = "company" }
tax_code = "hash"
revenue = { rule = "noise", percent = 10 }
staff = "noise"
share = "noise"
state = "keep"
moods = "keep"
[people]
id = "keep"
company = { rule = "hash", domain = "company" }
email = { rule = "email", domain = "mail" }
work = { rule = "email", domain = "mail" }
nick = "name"
bio = "text"
tags = "text"
profile = "text"
search = "text"
badge = { rule = "hash", domain = "badge" }
account = "hash"
photo = "hash"
full_name = "name"
town = "hash"
note = "keep"
[cards]
badge = { rule = "hash", domain = "badge" }
[events]
id = "keep"
at = "keep"
badge = { rule = "hash", domain = "badge" }
said = "null"
[empty_one]
id = "keep"
word = "text"
[base]
word = "hash"
[child]
word = "hash"
more = "null"
["sales.\\"we\\"\\"ird table\\""]
"a.b" = "text"
"sel ect" = "noise"
"Ünï%s{0}" = "keep"
[large]
id = "keep"
email = "email"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A clone with rows, and a build database with its structure."""

    clone: Database
    build: Database

    @property
    def urls(self) -> dict[str, str]:
        return {"clone_url": self.clone.superuser_url, "build_url": self.build.url}

    async def tables(self) -> tuple[masking.Table, ...]:
        async with connect(self.clone.url) as conn:
            return await masked_copy.read_tables(conn)

    async def classified(self, mask: Mapping[str, object]) -> tuple[TableMask, ...]:
        rules = masking.read_rules(SimpleNamespace(name="staging", mask=mask))
        return masking.classify(rules, await self.tables())

    async def copy(self, masks: tuple[TableMask, ...], key: str = KEY) -> CopyResult:
        return await masked_copy.copy(masks, key=key, jobs=2, **self.urls)

    async def check(self, masks: tuple[TableMask, ...], *sentinels: str) -> CheckResult:
        return await masked_copy.check(masks, sentinels=sentinels, **self.urls)

    async def fetch(self, side: str, sql: str) -> list[tuple[object, ...]]:
        async with connect(getattr(self, side).superuser_url) as conn:
            return [tuple(row) for row in await conn.fetch(sql)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(Pair):
    """The same after a copy through MASK, with foreign keys made and everything checked."""

    masks: tuple[TableMask, ...]
    copied: CopyResult
    checked: CheckResult
    # The texts of statements that other sessions could see meanwhile.
    seen: frozenset[str]


async def fill(pair: Pair, structure: str, rows: str, more: str = "") -> None:
    async with connect(pair.clone.url) as conn:
        await conn.execute(f"{structure};{rows};{more}")
    async with connect(pair.build.url) as conn:
        await conn.execute(structure)


@asynccontextmanager
async def new_pair(pg: server.Server) -> AsyncGenerator[Pair]:
    pair = Pair(clone=await create_database(pg), build=await create_database(pg))
    try:
        yield pair
    finally:
        await drop_database(pair.clone)
        await drop_database(pair.build)


@pytest.fixture(scope="module")
async def masked(pg: server.Server) -> AsyncIterator[Masked]:
    async with new_pair(pg) as pair:
        await fill(pair, STRUCTURE, ROWS, AFTERWARDS)
        async with connect(pg.url()) as conn:
            for each in (pair.clone, pair.build):
                await conn.execute(f"ALTER DATABASE {each.name} SET log_statement = 'all'")
        masks = await pair.classified(tomllib.loads(MASK))
        async with watched(pg, pair) as seen:
            copied = await pair.copy(masks)
        async with connect(pair.build.url) as conn:
            await conn.execute(AFTERWARDS)
        await masked_copy.copy_sequences(**pair.urls)
        checked = await pair.check(masks, "corp.example", "Lovelace")
        yield Masked(
            clone=pair.clone,
            build=pair.build,
            masks=masks,
            copied=copied,
            checked=checked,
            seen=frozenset(seen),
        )


@asynccontextmanager
async def watched(pg: server.Server, pair: Pair) -> AsyncGenerator[set[str]]:
    """The texts of statements that are seen in the two databases while the block runs."""
    seen: set[str] = set()

    async def watch() -> None:
        async with connect(pg.url()) as conn:
            while True:
                rows = await conn.fetch(
                    "SELECT query FROM pg_stat_activity WHERE datname = ANY($1)",
                    [pair.clone.name, pair.build.name],
                )
                seen.update(row["query"] for row in rows)
                await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.wait([watching])


@pytest.fixture(scope="module")
async def pair(pg: server.Server) -> AsyncIterator[Pair]:
    """The databases of ``small``: two new ones for each test would take most of its time."""
    async with new_pair(pg) as made:
        yield made


@pytest.fixture
def small(pair: Pair) -> Callable[..., Awaitable[Pair]]:
    """A function: structure and rows to a clone that has both and a build that has the first."""

    async def make(structure: str, rows: str = "") -> Pair:
        for side in (pair.clone, pair.build):
            async with connect(side.url) as conn:
                await conn.execute(
                    "DROP SCHEMA IF EXISTS airlock CASCADE; DROP SCHEMA public CASCADE;"
                    "CREATE SCHEMA public"
                )
        await fill(pair, structure, rows)
        return pair

    return make


# ---------------------------------------------------------------- copy


async def test_every_row_arrives_and_truncated_tables_stay_empty(masked: Masked):
    rows = {each.table: each.rows for each in masked.copied.tables}
    assert rows == {
        "companies": 20,
        "people": 50,
        "cards": 50,
        "events_old": 19,
        "events_one": 11,
        "events_rest": 20,
        "empty_one": 0,
        "nothing": 2,
        "base": 1,
        "child": 1,
        'sales."we""ird table"': 2,
        "large": LARGE,
    }
    assert await masked.fetch("build", "SELECT count(*) FROM audit_log") == [(0,)]
    assert masked.checked.rows == masked.copied.rows == sum(rows.values())
    assert masked.copied.sent_bytes > LARGE * 30


async def test_kept_columns_are_what_they_were(masked: Masked):
    for sql in (
        "SELECT id, state, moods FROM companies ORDER BY id",
        "SELECT id, note FROM people ORDER BY id",
        "SELECT id, at, tableoid::regclass::text FROM events ORDER BY at",
        f'SELECT "Ünï%s{{0}}" FROM sales.{WEIRD} ORDER BY 1',
    ):
        assert await masked.fetch("build", sql) == await masked.fetch("clone", sql), sql


async def test_null_stays_null_and_nothing_else_becomes_null(masked: Masked):
    sql = (
        "SELECT id FROM people WHERE num_nulls(email, bio, profile, full_name) = 4"
        " AND num_nulls(company, work, nick, tags, badge, account, photo, town, note) = 0"
    )
    assert await masked.fetch("build", sql) == [(50,)]
    assert await masked.fetch("build", "SELECT count(said) FROM events") == [(0,)]


async def test_computed_columns_are_computed_from_what_is_masked(masked: Masked):
    found = await masked.fetch("build", "SELECT DISTINCT letter FROM people ORDER BY 1")
    assert found == [("M",), (None,)]


FORMS = {
    "SELECT name FROM companies": r"[0-9a-f]{32}",
    "SELECT tax_code FROM companies": r"[A-Za-z0-9+/]{8}",
    "SELECT email FROM people": r"u[0-9a-f]{20}@masked\.invalid",
    "SELECT work FROM people": r"u[0-9a-f]{20}@masked\.invalid",
    "SELECT nick FROM people": r"[0-9a-f]{12}",
    "SELECT full_name FROM people": r"Masked [0-9a-f]{12}",
    "SELECT tags::text FROM people": r"\{[0-9a-f]{32}\}",
    "SELECT profile::text FROM people": r'\{"masked": "[0-9a-f]{32}"\}',
    "SELECT search::text FROM people": r"'[0-9a-f]{32}'",
    "SELECT account::text FROM people": r"[0-9]{10,19}",
    "SELECT encode(photo, 'hex') FROM people": r"[0-9a-f]{64}",
    "SELECT rtrim(town) FROM people": r"[A-Za-z0-9+/]{30}",
    "SELECT bio FROM people": r"[0-9a-f]{12}( [a-z ]*)?",
}


@pytest.mark.parametrize("sql", FORMS)
async def test_a_masked_value_has_the_form_of_its_rule(masked: Masked, sql: str):
    values = [value for (value,) in await masked.fetch("build", sql) if value is not None]
    assert len(values) > 15
    for value in values:
        assert re.fullmatch(FORMS[sql], str(value)), value


async def test_filler_is_as_long_as_the_text_was(masked: Masked):
    sql = "SELECT length(bio) FROM people ORDER BY id"
    assert await masked.fetch("build", sql) == await masked.fetch("clone", sql)


async def test_noise_stays_near_keeps_the_sign_and_never_the_value(masked: Masked):
    sql = "SELECT id, revenue, staff, share FROM companies ORDER BY id"
    before, after = await masked.fetch("clone", sql), await masked.fetch("build", sql)
    assert after[0][:3] == (1, 0, None)
    assert after[0][3] != after[0][3]
    for (_, *old), (number, *new) in zip(before[1:], after[1:], strict=True):
        for one, other in zip(old, new, strict=True):
            far = abs(float(other) - float(one))
            assert 0 < far <= max(1, 0.1001 * abs(float(one))), (number, one, other)
            assert (one > 0) == (other > 0)


async def test_joins_survive_because_one_domain_is_one_mapping(masked: Masked):
    """The foreign keys were made after the copy; and what they join is what was joined."""
    sql = (
        "SELECT p.id, c.id FROM people AS p JOIN companies AS c ON c.name = p.company"
        " JOIN cards AS k ON k.badge = p.badge ORDER BY 1"
    )
    joined = await masked.fetch("build", sql)
    assert len(joined) == 50
    assert joined == await masked.fetch("clone", sql)
    both = await masked.fetch("build", "SELECT count(*) FROM people WHERE email = work")
    assert both == [(0,)]


async def test_sequences_stand_where_they_stood(masked: Masked):
    for name in ("untouched", "sales.counted", "companies_id_seq"):
        sql = f"SELECT last_value, is_called FROM {name}"
        assert await masked.fetch("build", sql) == await masked.fetch("clone", sql), name


async def test_the_key_is_in_no_statement_and_no_log_and_the_masks_leave_nothing_behind(
    masked: Masked,
):
    assert any("FROM STDIN" in text for text in masked.seen)
    assert any("airlock_mask.digest" in text for text in masked.seen)
    derived = masked_copy.derived_key(KEY)
    assert not [text for text in masked.seen if KEY in text or derived in text]
    log = server.log_file(masked.clone.server.data_dir).read_text()
    assert "FROM STDIN" in log
    assert KEY not in log
    assert derived not in log
    for side in ("clone", "build"):
        sql = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'airlock%'"
        assert await masked.fetch(side, sql) == [(0,)]


async def test_the_same_key_makes_the_same_masks_and_another_key_others(small):
    pair = await small(
        "CREATE TABLE t (id int, a text, b text, n int)",
        "INSERT INTO t SELECT i, 'v' || i, 'v' || i, i FROM generate_series(1, 30) AS i",
    )
    masks = await pair.classified({"t": {"id": "keep", "a": "hash", "b": "email", "n": "noise"}})
    seen = []
    for key in (KEY, KEY, OTHER_KEY):
        await pair.copy(masks, key)
        seen.append(await pair.fetch("build", "SELECT a, b FROM t ORDER BY id"))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 30
    assert not {value for row in seen[0] for value in row} & {v for row in seen[2] for v in row}


async def test_the_digest_is_hmac_sha256_as_python_computes_it(small):
    pair = await small("CREATE TABLE t (a text)", "INSERT INTO t VALUES ('Zoë'), ('')")
    await pair.copy(await pair.classified({"t": {"a": {"rule": "hash", "domain": "d'ü"}}}))
    found = await pair.fetch("build", "SELECT a FROM t")
    key = bytes.fromhex(masked_copy.derived_key(KEY))
    assert found == [(_hmac(_hmac(key, "d'ü"), text).hex()[:32],) for text in ("Zoë", "")]


def _hmac(key: bytes, text: str) -> bytes:
    import hmac

    return hmac.digest(key, text.encode(), "sha256")


async def test_a_short_key_is_refused(small):
    pair = await small("CREATE TABLE t (a text)")
    with pytest.raises(Refused, match=r"has 5 characters.*at least 16"):
        await pair.copy(await pair.classified({"t": {"a": "hash"}}), "short")


async def test_a_mask_that_breaks_a_constraint_is_refused_without_the_row(small):
    pair = await small(
        "CREATE TABLE t (kept text, code text CONSTRAINT three CHECK (length(code) = 3))",
        # Far more than may wait between the two.
        "INSERT INTO t SELECT 'a private value' || repeat('x', 8000), 'abc'"
        " FROM generate_series(1, 1200)",
    )
    masks = await pair.classified({"t": {"kept": "keep", "code": "hash"}})
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(
            Refused, match=r"row of t does not fit.*23514.*constraint three"
        ) as failed:
            await pair.copy(masks)
    assert "private" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_failure_in_the_clone_ends_both_sides(small):
    pair = await small(
        "CREATE TABLE t (a text, b int)",
        "INSERT INTO t SELECT 'x', i FROM generate_series(1, 9) AS i",
    )
    masks = await pair.classified({"t": {"a": "keep", "b": "keep"}})
    async with connect(pair.clone.url) as conn:
        await conn.execute("ALTER TABLE t RENAME b TO c")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(AirlockError, match=r"copying t.*column t.b does not exist"):
            await pair.copy(masks)
    assert await pair.fetch("build", "SELECT count(*) FROM t") == [(0,)]


# ---------------------------------------------------------------- check


async def test_a_copy_that_is_right_passes_and_says_what_was_compared(masked: Masked):
    assert "people.email" in masked.checked.compared
    assert "companies.revenue" in masked.checked.compared
    assert "events.said" in masked.checked.compared
    assert "people.note" in masked.checked.searched
    assert "people.id" not in masked.checked.searched
    assert masked.checked.sentinels == 2


async def test_an_original_that_survives_is_found(small):
    """The copy is made with other masks than the check is told: as if a mask did nothing."""
    structure = "CREATE TABLE t (id int PRIMARY KEY, a text, n int, e text, gone text)"
    pair = await small(
        structure,
        "INSERT INTO t SELECT i, 'value ' || i, i, 'e' || i, 'g' FROM generate_series(1, 9) AS i",
    )
    told = {"id": "keep", "a": "hash", "n": "noise", "e": "email", "gone": "null"}
    masks = await pair.classified({"t": told})
    await pair.copy(await pair.classified({"t": dict.fromkeys(told, "keep")}))
    with pytest.raises(Refused) as failed:
        await pair.check(masks)
    _, *found = str(failed.value).splitlines()
    for line, name in zip(sorted(found), ("a", "e", "gone", "n"), strict=True):
        assert line.startswith(f"t.{name}: 9 rows still have an original value")
    assert "value 1" not in str(failed.value)
    await pair.copy(masks)
    assert (await pair.check(masks)).compared == ("t.a", "t.e", "t.gone", "t.n")


async def test_a_planted_sentinel_is_found_in_types_without_words(small):
    columns = ", ".join(f'"{kind}" {kind}' for kind in PLANTED_ELSEWHERE)
    values = ", ".join(f"'{value}'" for value in PLANTED_ELSEWHERE.values())
    pair = await small(
        f"CREATE DOMAIN blob AS bytea; CREATE TABLE t (id int, {columns})",
        "INSERT INTO t VALUES (1, " + values.replace("'Zoë'", "convert_to('Zoë', 'UTF8')") + ")",
    )
    masks = await pair.classified({"t": dict.fromkeys(("id", *PLANTED_ELSEWHERE), "keep")})
    await pair.copy(masks)
    with pytest.raises(Refused) as failed:
        await pair.check(masks, *PLANTED_ELSEWHERE.values(), "Zoë")
    for kind in PLANTED_ELSEWHERE:
        assert f"\nt.{kind}: 1 rows contain a sentinel" in str(failed.value)


async def test_a_planted_sentinel_is_found_in_a_materialised_view(small):
    pair = await small(
        "CREATE MATERIALIZED VIEW zoo AS SELECT 1 AS id, '4711-zebra'::text AS word;"
        "CREATE MATERIALIZED VIEW unfilled AS SELECT '4711-zebra'::text AS word WITH NO DATA"
    )
    url = pair.build.url
    with pytest.raises(Refused, match="views of the copy: zoo\\. "):
        await masked_copy.search_views(build_url=url, sentinels=("other", "4711-zebra"))
    await masked_copy.search_views(build_url=url, sentinels=("other",))


async def test_row_security_that_is_forced_but_not_enabled_yet_hides_nothing_from_the_check(small):
    pair = await small(
        "CREATE TABLE t (a text); ALTER TABLE t FORCE ROW LEVEL SECURITY",
        "INSERT INTO t VALUES ('x')",
    )
    masks = await pair.classified({"t": {"a": "hash"}})
    await pair.copy(masks)
    assert (await pair.check(masks)).compared == ("t.a",)


async def test_a_hash_in_an_array_is_as_wide_as_its_elements(small):
    pair = await small(
        "CREATE TABLE t (a varchar(20)[], b varchar(12)[])",
        "INSERT INTO t VALUES ('{abc}', '{abc,def}')",
    )
    await pair.copy(await pair.classified({"t": {"a": "text", "b": "text"}}))
    ((one, other),) = await pair.fetch("build", "SELECT a, b FROM t")
    assert [len(word) for word in (*one, *other)] == [20, 12]
    await small("CREATE TABLE t (a varchar(11)[])")
    with pytest.raises(Refused, match="too narrow"):
        await pair.classified({"t": {"a": "text"}})


async def test_a_database_of_another_encoding_is_refused(small, pg: server.Server):
    pair = await small("CREATE TABLE t (a text)")
    async with connect(pg.url()) as superuser:
        await superuser.execute(
            "CREATE DATABASE masked_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
        )
    async with connect(pair.clone.url) as clone, connect(pg.url("masked_latin")) as build:
        with pytest.raises(Refused, match="databases of one encoding"):
            await masked_copy.require_one_hash(clone, build)
    async with connect(pg.url()) as superuser:
        await superuser.execute("DROP DATABASE masked_latin")


async def test_servers_that_hash_differently_are_refused(small):
    """Nothing would be found equal, whatever survived. One server here has a hash of its own."""
    pair = await small("CREATE TABLE t (a text)")
    async with connect(pair.clone.url) as clone, connect(pair.build.superuser_url) as build:
        await build.execute(
            "BEGIN; ALTER FUNCTION pg_catalog.hashtextextended(text, bigint) RENAME TO hashed;"
            "CREATE FUNCTION pg_catalog.hashtextextended(text, bigint) RETURNS bigint"
            " LANGUAGE sql AS 'SELECT 1::bigint'"
        )
        with pytest.raises(Refused, match="hash text differently"):
            await masked_copy.require_one_hash(clone, build)
        await build.execute("ROLLBACK")
    async with connect(pair.clone.url) as clone, connect(pair.build.url) as build:
        await masked_copy.require_one_hash(clone, build)


async def test_noise_without_a_kept_key_is_said_not_to_be_compared(small):
    pair = await small("CREATE TABLE t (n int)", "INSERT INTO t VALUES (5)")
    masks = await pair.classified({"t": {"n": "noise"}})
    await pair.copy(masks)
    found = await pair.check(masks)
    assert found.compared == ()
    assert found.not_compared[0].startswith("t.n: noise, and the rows cannot be told")


async def test_a_row_too_few_or_too_many_is_found(small):
    pair = await small("CREATE TABLE t (id int); CREATE TABLE cut (id int)")
    for side in (pair.clone, pair.build):
        async with connect(side.url) as conn:
            await conn.execute("INSERT INTO t VALUES (1), (2), (3)")
    async with connect(pair.clone.url) as conn:
        await conn.execute("INSERT INTO cut VALUES (1)")
    async with connect(pair.build.url) as conn:
        await conn.execute("DELETE FROM t WHERE id = 2; INSERT INTO cut VALUES (1)")
    masks = await pair.classified({"t": {"id": "keep"}, "cut": "truncate"})
    with pytest.raises(Refused) as failed:
        await pair.check(masks)
    assert "\nt has 2 rows; expected were 3" in str(failed.value)
    assert "\ncut has 1 rows; expected were 0" in str(failed.value)


# By type; each has a column.
PLANTED = {
    "text": "'so the 4711-zebra said'",
    "varchar[]": "ARRAY['x', '4711-zebra']",
    "jsonb": """'{"deep": {"er": ["4711-zebra"]}}'""",
    "mail": "'4711-zebra@here'",
    "pair": "ROW('a', '4711-zebra')",
    "tsvector": "'''4711-zebra'' b'",
    "bytea": "'so 4711-zebra'",
    "bytea[]": "ARRAY['so 4711-zebra'::bytea]",
    "words": "'[4711-zebra,zz)'",
}
# Types without words, each with its sentinel; and bytes that are not ASCII.
PLANTED_ELSEWHERE = {
    "bigint": "4915112345678",
    "uuid": "550e8400-e29b-41d4-a716-446655440000",
    "date": "1985-04-11",
    "inet": "10.1.2.3",
    "json": r'"Zo\u00eb"',
    "blob": "Zoë",
}


async def test_a_planted_sentinel_is_found_wherever_text_can_stand(small):
    columns = ", ".join(f'"{kind}" {kind}' for kind in PLANTED)
    pair = await small(
        "CREATE DOMAIN mail AS text; CREATE TYPE pair AS (a text, b text);"
        f"CREATE TYPE words AS RANGE (subtype = text); CREATE TABLE t (id int, {columns})",
        f"INSERT INTO t VALUES (1, {', '.join(PLANTED.values())}); INSERT INTO t VALUES (2)",
    )
    seen = {kind: {"rule": "keep", "checked": True} for kind in PLANTED}
    masks = await pair.classified({"t": {"id": "keep"} | seen})
    await pair.copy(masks)
    with pytest.raises(Refused) as failed:
        await pair.check(masks, "other", "4711-zebra")
    for kind in PLANTED:
        assert f"\nt.{kind}: 1 rows contain a sentinel" in str(failed.value)
    assert "zebra" not in str(failed.value)
    assert (await pair.check(masks, "other")).sentinels == 1


FOUND = {
    "Write to ada.l+x@corp-mail.co.uk!": ("an e-mail address", "xxx.x+x@xxxx-xxxx.xx.xx"),
    "call +49 (171) 123-4567 now": ("a phone number", "+99 (999) 999-9999"),
    "(030) 1234567": ("a phone number", "(999) 9999999"),
    "Tel. 0171 1234567": ("a phone number", "9999 9999999"),
    "dial 415-555-2671.": ("a phone number", "999-999-9999"),
    "pay to DE89 3704 0044 0532 0130 00 AND SOON": ("an IBAN", "xx99 9999"),
    "GB29NWBK60161331926819": ("an IBAN", "xx99xxxx"),
    "BE68 5390 0754 7034 THEN MORE": ("an IBAN", "xx99 9999"),
    "Invoice RE24 0815 DE89 3704 0044 0532 0130 00": ("an IBAN", "xx99 9999 xx99 9999"),
    "max@müller.de": ("an e-mail address", "xxx@xxxxxx.xx"),
    "?to=ada%40corp.example": ("an e-mail address", "xxx%99xxxx.xxxxxxx"),
    r'{"to": "ada\u0040corp.example"}': ("an e-mail address", "xxx\\x9999xxxx.xxxxxxx"),
    "06 12 34 56 78": ("a phone number", "99 99 99 99 99"),
    "ring (06) 12 34 56 78": ("a phone number", "(99) 99 99 99 99"),
    "0049 171 1234567": ("a phone number", "9999 999 9999999"),
    "tel:01711234567": ("a phone number", ":99999999999"),
    "0171 12 34 567": ("a phone number", "9999 99 99 999"),
    "1-415-555-2671": ("a phone number", "9-999-999-9999"),
    "415 555 2671": ("a phone number", "999 999 9999"),
}


async def test_each_kept_text_that_gives_somebody_away_is_found_and_all_are_told_at_once(small):
    columns = {f"c{number}": text for number, text in enumerate(FOUND)}
    values = ", ".join(f"'{text}'" for text in FOUND)
    pair = await small(
        f"CREATE TABLE t (j jsonb, {', '.join(f'{name} text' for name in columns)})",
        f"INSERT INTO t VALUES ('{{}}', {values}); INSERT INTO t (c0) VALUES ('')",
    )
    masks = await pair.classified({"t": dict.fromkeys(("j", *columns), "keep")})
    await pair.copy(masks)
    with pytest.raises(Refused) as failed:
        await pair.check(masks)
    said = str(failed.value)
    for column, text in columns.items():
        name, shape = FOUND[text]
        assert (
            f"\nt.{column}: kept, and 1 times there is what looks like {name} (as {shape}" in said
        )
        assert not [word for word in text.split() if len(word) > 6 and word in said]
    seen = {column: {"rule": "keep", "checked": True} for column in columns}
    checked = await pair.classified({"t": {"j": "keep"} | seen})
    assert (await pair.check(checked)).searched == ("t.j",)


INNOCENT = (
    "2024-01-31 10:15:00+01",
    "2024-01-31T10:15:00.123456+01:00",
    "01/02/2024, 1.234.567,89 and 1 000 000",
    "1234567890123456",
    "+5 % on 1,000,000",
    "x + 1000000 = y, 7+8000000",
    "550e8400-e29b-41d4-a716-446655440000",
    "00000000-0171-4234-8123-123456789012",
    "192.168.100.200 and 10.0.0.1:8080",
    "user@localhost, @handle, a @ b.c",
    "DE00 3704 0044 0532 0130 00",
    "AB12CDEF34567890 and ISO 9001:2015, ISBN 978-3-16-148410-0",
    "US0378331005, SHA DEADBEEFDEADBEEFDEADBEEFDEADBEEF",
    "deal 0123, lot 0171-22, (2023) 12 34",
    "EAN 0012345678905, UPC 036000291452, lot 0000171234567",
    "00:15:30 on 01.02.2024, 10 20 30 40 50, 2024 10 11 12",
    "5%40 off, 12 345 678 9012",
    "v1.415.555, 200 300 400, 0.12.34.56.78",
)


async def test_innocent_text_is_not_found(small):
    rows = ", ".join(f"('{text}')" for text in INNOCENT)
    pair = await small("CREATE TABLE t (a text)", f"INSERT INTO t VALUES {rows}")
    masks = await pair.classified({"t": {"a": "keep"}})
    await pair.copy(masks)
    assert (await pair.check(masks)).searched == ("t.a",)


# ---------------------------------------------------------------- catalogue


async def test_the_tables_are_read_with_what_the_rules_need(masked: Masked):
    tables = {table.label: table for table in await masked.tables()}
    assert "audit_log" in tables
    assert not [label for label in tables if label.startswith(("pg_", "airlock"))]
    people = {column.name: column for column in tables["people"].columns}
    assert people["work"] == Column(
        name="work", type="work_mail", base="varchar", limit=80, not_null=True, holds_text=True
    )
    assert (people["letter"].generated, people["town"].limit) == (True, 30)
    assert [n for n, c in people.items() if not c.holds_text] == [
        "id",
        "badge",
        "account",
        "photo",
    ]
    revenue = tables["companies"].columns[3]
    assert (revenue.precision, revenue.scale) == (9, 2)
    assert tables["people"].primary_key == ("id",)
    assert tables["people"].foreign_keys[1].references == ("public", "companies")
    assert tables["events_rest"].root == ("public", "events")
    assert tables["events"].partitioned
    assert tables["events_new"].partitioned
    assert [c.name for c in tables["events_new"].columns if c.distributes] == ["id"]


async def test_a_partition_goes_by_the_columns_in_the_expressions_of_its_key(small):
    pair = await small(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a text, b text, c text DEFAULT 'c')"
        " PARTITION BY RANGE (lower(a), b)"
    )
    (found,) = await pair.tables()
    assert [c.name for c in found.columns if c.distributes] == ["a", "b"]


async def test_the_ledger_is_left_out(small):
    pair = await small(
        "CREATE SCHEMA airlock; CREATE TABLE airlock.deploy (id int); CREATE TABLE t (id int)"
    )
    assert [table.label for table in await pair.tables()] == ["t"]


async def test_the_command_drafts_rules_that_fit_the_live_schema(
    masked: Masked, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "airlock.toml"
    head = (
        '[targets.prod]\ndatabase_url_env = "PROD_URL"\n'
        '[targets.staging]\ndatabase_url_env = "STAGING_URL"\n'
    )
    refresh = '[targets.staging.refresh]\nsource = "prod"\nkey_env = "MASK_KEY"\n'
    path.write_text(head)
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(path))
    monkeypatch.setenv("PROD_URL", masked.clone.url)
    with pytest.raises(Refused, match=r"no \[targets\.staging\.refresh\]"):
        command_line.mask_draft("staging")
    path.write_text(
        head + refresh + '[targets.staging.mask]\naudit_log = "truncate"\n'
        '[targets.staging.mask.companies]\nstate = "null"\n'
    )
    # The command runs a loop of its own.
    await asyncio.to_thread(command_line.mask_draft, "staging")
    drafted = capsys.readouterr().out
    assert 'audit_log = "truncate"  # stands already' in drafted
    assert 'state = "null"  # stands already' in drafted
    assert 'company = { rule = "hash", domain = "companies.name" }' in drafted
    path.write_text(head + refresh + drafted)
    rules = masking.read_rules(settings.target("staging"))
    masks = masking.classify(rules, await masked.tables())
    by_table = {mask.table.label: mask for mask in masks}
    assert by_table["audit_log"].truncated
    people = {each.column.name: each.rule for each in by_table["people"].columns}
    assert people["email"] == Rule(name="email")
    assert replace(people["bio"], domain=None) == Rule(name="text")
