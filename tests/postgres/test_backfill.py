"""Backfills: every row once, whatever the key and the statement, however often they are cut off."""

from __future__ import annotations

import pytest

from airlock import ledger, record
from airlock.effects import LockMode
from airlock.postgres import Conn, connect
from airlock.rehearsal import Rehearsal
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
        """CREATE SCHEMA "S t"; CREATE TABLE "S t"."De""als" ("Key $1" int PRIMARY KEY, "where" int);
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
    (done,) = await ledger.backfills(conn, lease.deploy)
    assert (done.direction, done.changed_rows, done.batches) == ("forward", 21, 7)
