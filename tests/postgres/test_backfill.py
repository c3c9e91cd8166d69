"""Backfills: every row once, whatever the key and the statement, however often they are cut off."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from airlock import ledger, record
from airlock.__main__ import _status
from airlock.backfill import Observe
from airlock.effects import LockMode
from airlock.errors import Broken, LeaseLost, Refused, Transient
from airlock.postgres import Conn
from airlock.preview import preview
from airlock.rehearsal import Rehearsal
from airlock.rollback import reverse_migrations
from airlock.syntax import Statement
from tests.people import connect
from tests.postgres.conftest import Project, runner

HEADER = "-- Airlock: backfill table=deals key=id batch={batch}"
DEALS = """CREATE TABLE deals (id bigint PRIMARY KEY, score int, n int NOT NULL DEFAULT 0);
INSERT INTO deals (id) SELECT g * g FROM generate_series(1, 25) AS g;"""
COUNT_UP = "UPDATE deals SET n = n + 1;"
COUNT_DOWN = "UPDATE deals SET n = n - 1;"

# A table deals, the header's options, and the statement.
FORMS = {
    "gaps in the key": (DEALS, "table=deals key=id batch=4", "UPDATE deals SET score = 1"),
    "OR without parentheses": (
        DEALS,
        "table=deals key=id batch=4",
        "UPDATE deals SET score = 1 WHERE id < 50 OR id > 300 -- and no more",
    ),
    "an alias": (
        DEALS,
        "table=deals key=id batch=4",
        "UPDATE deals AS d SET score = d.id WHERE d.n = 0 /* where */ OR d.n IS NULL",
    ),
    "another table": (
        DEALS + "CREATE TABLE s (id bigint, v int); INSERT INTO s SELECT id, id + 7 FROM deals;",
        "table=public.deals key=id batch=4",
        "UPDATE deals SET score = s.v FROM s WHERE s.id = deals.id AND s.v < 200 OR s.v IS NULL",
    ),
    "a WITH": (
        DEALS,
        "table=deals key=id batch=4",
        "WITH w AS (SELECT 5 AS v WHERE true) UPDATE deals SET score = w.v FROM w WHERE id > 9",
    ),
    "quoted names": (
        """CREATE SCHEMA "S t";
        CREATE TABLE "S t"."De""als" ("Key $1" int PRIMARY KEY, "where" int);
        INSERT INTO "S t"."De""als" SELECT g FROM generate_series(-9, 9) AS g;
        CREATE VIEW deals AS SELECT * FROM "S t"."De""als";""",
        'table="S t"."De""als" key="Key $1" batch=4',
        'UPDATE "S t"."De""als" SET "where" = 1 WHERE "Key $1" <> 3',
    ),
    "a uuid": (
        """CREATE TABLE deals (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int);
        INSERT INTO deals (n) SELECT g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "text in the order of C": (
        """CREATE TABLE deals (id text COLLATE "C" PRIMARY KEY, n int);
        INSERT INTO deals SELECT chr(60 + g) || E'\\'\\\\ $1', g FROM generate_series(1, 60) AS g;
        INSERT INTO deals VALUES ('', 7);""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "moments": (
        """SET TimeZone = 'Asia/Kathmandu';
        CREATE TABLE deals (id timestamptz PRIMARY KEY, n int);
        INSERT INTO deals SELECT '-infinity'::timestamptz, 0 UNION ALL
        SELECT '2024-03-31 01:59:59.999999Z'::timestamptz + g * '1 microsecond'::interval, g
        FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "floats": (
        """CREATE TABLE deals (id float8 PRIMARY KEY, n int);
        INSERT INTO deals SELECT 1.0 / g, g FROM generate_series(1, 25) AS g;
        INSERT INTO deals VALUES ('NaN', 1), ('-Infinity', 2);""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "characters that are padded": (
        """CREATE TABLE deals (id character(9) PRIMARY KEY, n int);
        INSERT INTO deals SELECT 'a' || g, g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "bits": (
        """CREATE TABLE deals (id bit(6) PRIMARY KEY, n int);
        INSERT INTO deals SELECT g::bit(6), g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "a domain": (
        """CREATE DOMAIN code AS varchar(7) CHECK (value <> '');
        CREATE TABLE deals (id code PRIMARY KEY, n int);
        INSERT INTO deals SELECT 'a' || g, g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "an enumeration": (
        """CREATE TYPE size AS ENUM ('small', 'large', 'huge', 'big');
        CREATE TABLE deals (id size PRIMARY KEY, n int);
        INSERT INTO deals SELECT unnest(enum_range(NULL::size)), 1;""",
        "table=deals key=id batch=1",
        "UPDATE deals SET n = n * 2",
    ),
    "an index that goes down, and repeats": (
        """CREATE TABLE deals (id int NOT NULL, m int, n int);
        CREATE UNIQUE INDEX ON deals (id DESC, m);
        INSERT INTO deals SELECT g / 7, g, g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "partitions": (
        """CREATE TABLE deals (id int PRIMARY KEY, n int) PARTITION BY HASH (id);
        CREATE TABLE d0 PARTITION OF deals FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE d1 PARTITION OF deals FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO deals SELECT g, g FROM generate_series(1, 25) AS g;""",
        "table=deals key=id batch=4",
        "UPDATE deals SET n = n * 2",
    ),
    "ONLY a parent": (
        """CREATE TABLE deals (id int PRIMARY KEY, n int); CREATE TABLE more () INHERITS (deals);
        INSERT INTO deals SELECT g, g FROM generate_series(1, 25) AS g;
        INSERT INTO more VALUES (3, 3), (99, 99);""",
        "table=deals key=id batch=4",
        "UPDATE ONLY deals SET n = n * 2",
    ),
    "a DELETE": (DEALS, "table=deals key=id batch=4", "DELETE FROM deals WHERE id < 9 OR id > 90"),
    "no rows": (
        "CREATE TABLE deals (id int PRIMARY KEY, n int);",
        "table=deals key=id",
        "UPDATE deals SET n = 1",
    ),
    "one row": (
        "CREATE TABLE deals (id int PRIMARY KEY, n int); INSERT INTO deals VALUES (1, 1);",
        "table=deals key=id batch=1",
        "UPDATE deals SET n = 2",
    ),
}


async def contents(conn: Conn) -> list[str]:
    return [row[0] for row in await conn.fetch("SELECT t::text FROM deals AS t ORDER BY t::text")]


async def fill(project: Project, conn: Conn, setup: str, options: str, statement: str):
    """The table, and the backfill as the only migration of a deploy that was begun."""
    await conn.execute(setup)
    project.write(1, f"-- Airlock: backfill {options}\n{statement};", "Nothing to undo: a test.")
    return await project.begin(), project.migrations()[0]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_backfill_leaves_what_its_statement_would(project: Project, conn: Conn, form):
    setup, options, statement = form
    lease, step = await fill(project, conn, setup, options, statement)
    async with connect(project.url) as plain:
        whole = plain.transaction()
        await whole.start()
        await plain.execute(statement)
        expected = await contents(plain)
        await whole.rollback()
    await runner(project, conn, lease).forward(step, position=1)
    assert await contents(conn) == expected
    (row,) = await project.rows(lease)
    assert (row.state, row.segments_done) == ("applied", 1)
    (done,) = await ledger.backfills(conn, lease.deploy)
    assert done.is_done
    assert done.batches >= min(len(expected) // 5, 2)


# ---------------------------------------------------------------- cut off


class Cut(Exception):
    """The runner is gone in the middle of a batch."""


def cut_after(batches: int):
    """What a runner hears of its batches; the one after so many does not come to its end."""

    @asynccontextmanager
    async def hear(conn: Conn, statement: Statement) -> AsyncIterator[Observe]:
        done = 0

        async def observe(rows: int, seconds: float) -> None:
            nonlocal done
            done += 1
            if done > batches:
                raise Cut

        yield observe

    return hear


async def count_up(project: Project, conn: Conn, *, batch: int = 4, reverse: str = COUNT_DOWN):
    """A table that counts how often each of its rows is met, and its backfill."""
    await conn.execute(DEALS)
    project.write(1, f"{HEADER.format(batch=batch)}\n{COUNT_UP}", reverse)
    return await project.begin(), project.migrations()[0]


async def counted(conn: Conn) -> dict[int, int]:
    """How many rows were met how often."""
    return dict(await conn.fetch("SELECT n, count(*) FROM deals GROUP BY n ORDER BY n"))


@given(
    keys=st.sets(st.integers(-(2**63), 2**63 - 1), max_size=12),
    batch=st.integers(1, 14),
    cuts=st.lists(st.integers(0, 4), max_size=3),
    back=st.lists(st.integers(0, 4), max_size=2),
)
@hypothesis.settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
async def test_every_row_is_met_once_and_back_however_often_it_is_cut_off(
    project: Project, conn: Conn, keys, batch, cuts, back
):
    await conn.execute("DROP TABLE IF EXISTS deals; DROP SCHEMA IF EXISTS airlock CASCADE")
    lease, step = await count_up(project, conn, batch=batch)
    await conn.execute("TRUNCATE deals")
    await conn.executemany("INSERT INTO deals (id) VALUES ($1)", [(key,) for key in keys])
    for cut in cuts:
        with contextlib.suppress(Cut):
            await runner(project, conn, lease, batches=cut_after(cut)).forward(step, position=1)
    if len(back) != 1:  # else it goes back from where it was cut off
        await runner(project, conn, lease).forward(step, position=1)
        assert await counted(conn) == ({1: len(keys)} if keys else {})
    for cut in back:
        for row in await project.rows(lease):
            with contextlib.suppress(Cut):
                await runner(project, conn, lease, batches=cut_after(cut)).reverse(row)
    for row in await project.rows(lease):
        if row.state != "rolled_back":
            await runner(project, conn, lease).reverse(row)
    assert await counted(conn) == ({0: len(keys)} if keys else {})


async def test_a_batch_and_how_far_it_came_are_one_transaction(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    async with connect(project.url) as doomed, connect(project.url) as other:

        @asynccontextmanager
        async def hear(_conn: Conn, _statement: Statement) -> AsyncIterator[Observe]:
            async def observe(_rows: int, _seconds: float) -> None:
                (row,) = await ledger.backfills(other, lease.deploy)
                if row.batches == 3:
                    await other.execute("SELECT pg_terminate_backend($1)", doomed.get_server_pid())

            yield observe

        with pytest.raises(Transient):
            await runner(project, doomed, lease, batches=hear).forward(step, position=1)
    (row,) = await ledger.backfills(conn, lease.deploy)
    assert (row.batches, row.changed_rows, row.last_key) == (3, 12, "144")
    assert await counted(conn) == {0: 13, 1: 12}
    assert [each.state for each in await project.rows(lease)] == ["started"]
    taken = await project.take_over(lease)
    with pytest.raises(LeaseLost):
        await runner(project, conn, lease).forward(step, position=1)
    await runner(project, conn, taken).forward(step, position=1)
    assert await counted(conn) == {1: 25}


async def test_rows_that_come_later_are_left_to_who_writes_them(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    with pytest.raises(Cut):
        await runner(project, conn, lease, batches=cut_after(2)).forward(step, position=1)
    await conn.execute("INSERT INTO deals (id, n) VALUES (2, 5), (1000, 7)")
    await runner(project, conn, lease).forward(step, position=1)
    assert await counted(conn) == {1: 25, 5: 1, 7: 1}
    (row,) = await project.rows(lease)
    await runner(project, conn, lease).reverse(row)
    # What came into a range that was walked is met by the reverse SQL, as without batches.
    assert await counted(conn) == {0: 25, 4: 1, 7: 1}


async def test_status_says_how_far_an_open_one_is(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    with pytest.raises(Cut):
        await runner(project, conn, lease, batches=cut_after(2)).forward(step, position=1)
    found = await _status(project.target)
    assert re.search(r"\n  001_step: 8 of about [0-9,]+ rows \([0-9]+ %\)\n", str(found["says"]))


async def test_a_backfill_may_have_nothing_to_undo(project: Project, conn: Conn):
    lease, step = await count_up(project, conn, reverse="Nothing to undo: n is not read.")
    with pytest.raises(Cut):
        await runner(project, conn, lease, batches=cut_after(2)).forward(step, position=1)
    (row,) = await project.rows(lease)
    await runner(project, conn, lease).reverse(row)
    assert [each.state for each in await project.rows(lease)] == ["rolled_back"]
    assert await counted(conn) == {0: 17, 1: 8}


async def test_after_the_way_back_it_begins_anew(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    for _ in range(2):
        await runner(project, conn, lease).forward(step, position=1)
        assert await counted(conn) == {1: 25}
        (row,) = await project.rows(lease)
        await runner(project, conn, lease).reverse(row)
        assert await counted(conn) == {0: 25}


# ---------------------------------------------------------------- refused

UNWALKABLE = {
    "no table": ("CREATE VIEW deals AS SELECT 1 AS id, 1 AS n", 'no table "deals"'),
    "no column": ("CREATE TABLE deals (n int)", 'no column "id"'),
    "NULLs": ("CREATE TABLE deals (id int UNIQUE, n int)", "may be NULL"),
    "no index": ("CREATE TABLE deals (id int NOT NULL, n int)", "no unique index"),
    "an index that repeats": (
        "CREATE TABLE deals (id int NOT NULL, n int); CREATE INDEX ON deals (id)",
        "no unique index",
    ),
    "an index of another column first": (
        "CREATE TABLE deals (id int, n int, PRIMARY KEY (n, id))",
        "no unique index",
    ),
    "an index of a part": (
        "CREATE TABLE deals (id int NOT NULL, n int);CREATE UNIQUE INDEX ON deals (id) WHERE n > 0",
        "no unique index",
    ),
    "another order": (
        """CREATE TABLE deals (id text NOT NULL, n int);
        CREATE UNIQUE INDEX ON deals (id COLLATE "C");
        CREATE UNIQUE INDEX ON deals (id text_pattern_ops)""",
        "no unique index",
    ),
    "a type of their own": (
        "CREATE TYPE pair AS (a int, b int); CREATE TABLE deals (id pair PRIMARY KEY, n int)",
        "is of type public.pair",
    ),
    "children": (
        "CREATE TABLE deals (id int PRIMARY KEY, n int); CREATE TABLE more () INHERITS (deals)",
        "has children",
    ),
    "hidden rows": (
        """CREATE TABLE deals (id int PRIMARY KEY, n int);
        ALTER TABLE deals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY""",
        "row security",
    ),
}


@pytest.mark.parametrize(("setup", "said"), UNWALKABLE.values(), ids=UNWALKABLE)
async def test_a_key_that_would_miss_rows_is_refused_before_the_first(
    project: Project, conn: Conn, setup, said
):
    lease, step = await fill(project, conn, setup, "table=deals key=id", "UPDATE deals SET n = 1")
    with pytest.raises(Refused, match=said):
        await runner(project, conn, lease).forward(step, position=1)
    assert await project.rows(lease) == ()


async def test_rows_that_a_policy_hides_from_us_are_found_out_at_the_plan(
    project: Project, conn: Conn
):
    await conn.execute(UNWALKABLE["hidden rows"][0])
    project.write(1, f"{HEADER.format(batch=4)}\n{COUNT_UP}", COUNT_DOWN)
    with pytest.raises(Refused, match=r"001_step.sql: row security of \"deals\" is active"):
        await preview(project.target)


async def test_a_policy_that_comes_in_between_hides_nothing_in_silence(
    project: Project, conn: Conn
):
    lease, step = await count_up(project, conn)

    @asynccontextmanager
    async def hear(_conn: Conn, _statement: Statement) -> AsyncIterator[Observe]:
        async def observe(_rows: int, _seconds: float) -> None:
            await conn.execute(
                "ALTER TABLE public.deals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            )

        yield observe

    with pytest.raises(Broken, match="row-level security policy"):
        await runner(project, conn, lease, batches=hear).forward(step, position=1)


# ---------------------------------------------------------------- whole deploys


async def test_a_deploy_rehearses_measures_and_applies_a_backfill(project: Project, conn: Conn):
    await conn.execute(DEALS)
    project.write(
        1, "ALTER TABLE deals ADD COLUMN rank int;", "ALTER TABLE deals DROP COLUMN rank;"
    )
    project.write(
        2,
        f"{HEADER.format(batch=4)}\nUPDATE deals SET rank = id WHERE id > 16;",
        "UPDATE deals SET rank = NULL;",
    )
    lease = await project.deploy()
    assert await conn.fetchval("SELECT count(*) FROM deals WHERE rank = id") == 21
    row = await ledger.deploy(conn, lease.deploy)
    rehearsed = record.load(Rehearsal, row.rehearsal)
    assert rehearsed.verdict == "exact"
    (filled,) = rehearsed.migrations[1].statements
    assert (filled.rows, filled.statement) == (21, "UPDATE deals SET rank = id WHERE id > 16")
    assert filled.wal_bytes > 0
    assert {(e.relation, e.lock) for e in filled.effects} >= {
        ("public.deals", LockMode.ROW_EXCLUSIVE)
    }
    assert filled.surprises == ()
    (done,) = await ledger.backfills(conn, lease.deploy)
    assert (done.direction, done.changed_rows, done.batches) == ("forward", 21, 7)


async def test_what_a_backfill_wrote_is_not_kept_and_what_clients_wrote_is(
    project: Project, conn: Conn
):
    await conn.execute(DEALS)
    project.write(
        1, "ALTER TABLE deals ADD COLUMN rank int;", "ALTER TABLE deals DROP COLUMN rank;"
    )
    project.write(
        2,
        f"{HEADER.format(batch=4)}\nUPDATE deals SET rank = id WHERE rank IS NULL;",
        "Nothing to undo: rank goes with 001.",
    )
    lease = await project.deploy()
    await conn.execute("UPDATE deals SET rank = 0 WHERE id = 9")
    row = await ledger.deploy(conn, lease.deploy)
    rehearsed = record.load(Rehearsal, row.rehearsal)
    before = await ledger.load_catalogue(conn, rehearsed.schema_before)
    undone = await reverse_migrations(project.target, lease, rehearsed.migrations, before)
    assert (undone.migrations, undone.kept_rows) == (("002_step", "001_step"), 1)
    assert await project.fetch("SELECT row_data->>'id' FROM airlock.kept") == [("9",)]
