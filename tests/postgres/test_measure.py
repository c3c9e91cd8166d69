"""What a statement did, measured: locks, rewrites, scans, WAL, rows."""

from __future__ import annotations

import pytest

from airlock import syntax
from airlock.effects import LockMode
from airlock.measure import Measurement
from tests.people import connect

ROWS = 5000


@pytest.fixture
async def conn(database):
    async with connect(database.url) as found:
        await found.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a int, note text);"
            f"INSERT INTO t SELECT n, n, 'row ' || n FROM generate_series(1, {ROWS}) AS n;"
            "CREATE INDEX t_a ON t (a); CREATE TABLE child (t int REFERENCES t)"
        )
        yield found


async def measure(conn, url: str, *sql: str):
    """The effects of statements that run in one transaction, or each in none."""
    found = Measurement(url=url)
    statements = [syntax.parse(each)[0] for each in sql]
    if any("CONCURRENTLY" in each for each in sql):
        for statement in statements:
            await found.execute(conn, statement)
    else:
        async with conn.transaction():
            for statement in statements:
                await found.execute(conn, statement)
    return found.take()


def of(effects, relation: str):
    return next(each for each in effects.effects if each.relation == relation)


@pytest.mark.parametrize(
    ("sql", "lock", "rewrites", "scans"),
    [
        ("ALTER TABLE t ADD COLUMN b int DEFAULT 7", LockMode.ACCESS_EXCLUSIVE, False, False),
        ("ALTER TABLE t ALTER a TYPE bigint", LockMode.ACCESS_EXCLUSIVE, True, True),
        ("ALTER TABLE t ALTER note TYPE varchar", LockMode.ACCESS_EXCLUSIVE, False, False),
        (
            "ALTER TABLE t ADD COLUMN c timestamptz DEFAULT clock_timestamp()",
            LockMode.ACCESS_EXCLUSIVE,
            True,
            True,
        ),
        ("ALTER TABLE t ALTER a SET NOT NULL", LockMode.ACCESS_EXCLUSIVE, False, True),
        ("CREATE INDEX i ON t (note)", LockMode.SHARE, False, True),
        ("UPDATE t SET note = 'x'", LockMode.ROW_EXCLUSIVE, False, True),
        ("SELECT * FROM t", LockMode.ACCESS_SHARE, False, True),
        ("COMMENT ON TABLE t IS 'x'", LockMode.SHARE_UPDATE_EXCLUSIVE, False, False),
        ("DROP TABLE child", LockMode.ACCESS_EXCLUSIVE, False, False),
    ],
)
async def test_locks_rewrites_and_scans_are_what_postgresql_does(
    conn, database, sql, lock, rewrites, scans
):
    (found,) = await measure(conn, database.url, sql)
    effect = of(found, "public.t")
    assert (effect.lock, effect.rewrites, effect.scans) == (lock, rewrites, scans)
    assert found.statement == sql


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("UPDATE t SET a = 1 WHERE id <= 10", 10),
        ("INSERT INTO t VALUES (-1, 1, 'x')", 1),
        ("DELETE FROM t WHERE id = 0", 0),
        ("ALTER TABLE t ADD COLUMN b int", None),
        ("DO $$ BEGIN UPDATE t SET a = 1; END $$", None),
    ],
)
async def test_the_rows_of_a_statement_are_counted(conn, database, sql, rows):
    (found,) = await measure(conn, database.url, sql)
    assert found.rows == rows


async def test_what_rewrites_writes_wal_and_what_does_not_writes_little(conn, database):
    instant, rewriting = await measure(
        conn, database.url, "ALTER TABLE t ADD COLUMN b int", "UPDATE t SET note = note || 'x'"
    )
    assert instant.wal_bytes < 100_000
    assert rewriting.wal_bytes > ROWS * 50


async def test_a_rewrite_under_a_lock_that_was_taken_before_is_seen(conn, database):
    first, second = await measure(
        conn, database.url, "ALTER TABLE t ADD COLUMN b int", "ALTER TABLE t ALTER a TYPE bigint"
    )
    assert not of(first, "public.t").rewrites
    assert of(second, "public.t").rewrites
    assert of(second, "public.t").lock is LockMode.ACCESS_EXCLUSIVE


async def test_a_lock_is_held_to_the_end_of_its_transaction(conn, database):
    first, second = await measure(
        conn, database.url, "ALTER TABLE t ADD COLUMN b int", "SELECT pg_sleep(0.1)"
    )
    assert second.effects == ()
    held = of(first, "public.t").held_s
    assert held is not None
    assert held == pytest.approx(first.seconds + second.seconds)


async def test_a_table_that_the_plan_itself_makes_keeps_nobody_waiting(conn, database):
    made, altered = await measure(
        conn,
        database.url,
        "CREATE TABLE new (id int REFERENCES t)",
        "ALTER TABLE new ADD COLUMN b int",
    )
    assert [each.relation for each in made.effects] == ["public.t"]
    assert altered.effects == ()


async def test_a_table_of_an_earlier_migration_of_the_plan_keeps_nobody_waiting(conn, database):
    found = Measurement(url=database.url)
    await found.execute(conn, syntax.parse("CREATE TABLE new (id int)")[0])
    found.take()
    await found.execute(conn, syntax.parse("ALTER TABLE new ADD COLUMN b int")[0])
    (second,) = found.take()
    assert second.effects == ()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY i ON t (note)",
        "REINDEX INDEX CONCURRENTLY t_a",
        "REINDEX TABLE CONCURRENTLY t",
    ],
)
async def test_the_lock_of_a_concurrent_build_is_seen_from_outside(conn, database, sql):
    await conn.execute(
        f"INSERT INTO t SELECT n, n, md5(n::text) FROM generate_series({ROWS + 1}, 60000) AS n"
    )
    (found,) = await measure(conn, database.url, sql)
    effect = of(found, "public.t")
    assert effect.lock is LockMode.SHARE_UPDATE_EXCLUSIVE
    # What REINDEX holds for a moment, to drop the old index, is no lock of the whole build.
    assert all(e.held_s < found.seconds for e in found.effects if e.blocks_writes)
    assert 0 < effect.held_s <= found.seconds
    assert not effect.lock.blocks_writes
