"""What a statement outside of transactions leaves when it is cut off: finished, or removed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg
import pytest

from airlock import leftovers, rollback, sessions
from airlock.apply import Runner
from airlock.errors import Broken, Transient
from airlock.postgres import DRIVER_ERRORS, Conn
from airlock.settings import Budget
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.postgres.conftest import BUDGET, Project, runner

# What is half there: invalid indexes, and partitions whose detaching is pending.
HALF = """
SELECT c.oid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE NOT i.indisvalid
UNION ALL SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending
"""
TABLE = "CREATE TABLE t (a int); CREATE INDEX i ON t (a)"
PARTITIONED = """
CREATE TABLE p (a int NOT NULL) PARTITION BY LIST (a); CREATE INDEX pi ON p (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)
"""
SCHEMAS = """
CREATE SCHEMA "odd s"; CREATE TABLE "odd s".t (a int); CREATE INDEX "I ""i" ON "odd s".t (a);
CREATE TABLE t (a int); CREATE INDEX "I ""i" ON t (a)
"""
ATTACH = "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1);"
UNDO_DETACH = f"{ATTACH}\nALTER TABLE p1 DROP CONSTRAINT IF EXISTS p1_a_check;"
WRITING, READING = "ROW EXCLUSIVE", "ACCESS SHARE"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A migration that waits for a lock of somebody else, and loses its connection there.

    lock: what that somebody holds on ``on``. leaves: what is half there then.
    before: further SQL, in the transaction in front of the statement.
    """

    made: str = TABLE
    forward: str
    reverse: str = "SELECT 1;"
    on: str = "t"
    lock: str = WRITING
    leaves: str
    before: str = ""


CUTS = {
    "a new index": Cut(
        forward="CREATE INDEX CONCURRENTLY j ON t (a);",
        reverse="DROP INDEX CONCURRENTLY j;",
        leaves="j",
    ),
    "a new index, dropped in a transaction": Cut(
        forward="CREATE INDEX CONCURRENTLY j ON t (a);", reverse="DROP INDEX j;", leaves="j"
    ),
    "a new index that may exist, and that its reverse forgets": Cut(
        forward="CREATE INDEX CONCURRENTLY IF NOT EXISTS j ON t (a);", leaves="j"
    ),
    "a new index of a partition": Cut(
        made=PARTITIONED,
        forward="CREATE INDEX CONCURRENTLY j ON p1 (a);",
        reverse="DROP INDEX CONCURRENTLY j;",
        on="p1",
        leaves="j",
    ),
    "a new index in the schema that the file set before": Cut(
        made=SCHEMAS,
        before='SET search_path = "odd s";\nCREATE TABLE u ();',
        forward="CREATE INDEX CONCURRENTLY j ON t (a);",
        reverse='DROP INDEX CONCURRENTLY "odd s".j;\nDROP TABLE "odd s".u;',
        on='"odd s".t',
        leaves='"odd s".j',
    ),
    "a dropped index": Cut(
        forward="DROP INDEX CONCURRENTLY i;",
        reverse="CREATE INDEX CONCURRENTLY i ON t (a);",
        lock=READING,
        leaves="i",
    ),
    "a dropped index whose reverse accepts any": Cut(
        forward="DROP INDEX CONCURRENTLY i;",
        reverse="CREATE INDEX IF NOT EXISTS i ON t (a);",
        lock=READING,
        leaves="i",
    ),
    "an index built anew": Cut(forward="REINDEX INDEX CONCURRENTLY i;", leaves="i_ccnew"),
    "an index built anew and swapped": Cut(
        forward="REINDEX INDEX CONCURRENTLY i;", lock=READING, leaves="i_ccold"
    ),
    "a table's indexes": Cut(forward="REINDEX TABLE CONCURRENTLY t;", leaves="i_ccnew"),
    "a partitioned table's indexes": Cut(
        made=PARTITIONED,
        forward="REINDEX TABLE CONCURRENTLY p;",
        on="p2",
        lock=READING,
        leaves="p2_a_idx_ccold",
    ),
    "a partitioned index": Cut(
        made=PARTITIONED, forward="REINDEX INDEX CONCURRENTLY pi;", on="p1", leaves="p1_a_idx_ccnew"
    ),
    "a schema's indexes": Cut(
        made=SCHEMAS,
        forward='REINDEX SCHEMA CONCURRENTLY "odd s";',
        on='"odd s".t',
        leaves='"odd s"."I ""i_ccnew"',
    ),
    "a partition that is detached": Cut(
        made=PARTITIONED,
        forward="ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;",
        reverse=UNDO_DETACH,
        on="p",
        lock=READING,
        leaves="p1",
    ),
}


async def cut_off(project: Project, cut: Cut, *, leaves: int = 1):
    """The deploy, and the catalogue before it, after the connection was lost in the statement."""
    await project.execute(cut.made)
    project.write(1, f"{cut.before}\n{cut.forward}", cut.reverse)
    before = await project.catalogue()
    lease = await project.begin()
    (step,) = project.migrations()
    async with (
        connect(project.database.superuser_url) as superuser,
        connect(project.url) as other,
        connect(project.url) as conn,
    ):
        blocking = other.transaction()
        await blocking.start()
        await other.execute(f"LOCK TABLE {cut.on} IN {cut.lock} MODE")
        applying = asyncio.create_task(runner(project, conn, lease).forward(step, position=1))
        await until(lambda: superuser.fetchval("SELECT $1 IN (" + HALF + ")", cut.leaves))
        await waiting(superuser, conn.get_server_pid())
        await superuser.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
        with pytest.raises(Transient):
            await applying
        await blocking.rollback()
        found = await half(project)
        assert cut.leaves in found
        assert len(found) == leaves
    return lease, before


async def waiting(conn, pid: int) -> None:
    sql = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    await until(lambda: conn.fetchval(sql, pid))


async def half(project: Project) -> list[object]:
    return [name for (name,) in await project.fetch(HALF)]


async def go_on(project: Project, lease, version: int = 1):
    """What the next try does."""
    async with connect(project.url) as conn:
        await runner(project, conn, lease).forward(project.migrations()[version - 1], position=1)


async def go_back(project: Project, lease, before):
    return await rollback.reverse_migrations(project.target, lease, (), before)


@pytest.mark.parametrize("what", CUTS)
async def test_the_next_try_leaves_nothing_half_done(project: Project, what: str):
    lease, before = await cut_off(project, CUTS[what])
    await go_on(project, lease)
    assert await half(project) == []
    assert [row.state for row in await project.rows(lease)] == ["applied"]
    if "forgets" not in what:
        await go_back(project, lease, before)


@pytest.mark.parametrize("what", CUTS)
async def test_the_way_back_gives_the_schema_from_before(project: Project, what: str):
    lease, before = await cut_off(project, CUTS[what])
    await go_back(project, lease, before)
    assert (await project.catalogue()).fingerprint == before.fingerprint


@pytest.mark.parametrize("what", ["an index built anew", "a partition that is detached"])
async def test_without_the_sweep_it_would_not(project: Project, what: str, monkeypatch):
    lease, before = await cut_off(project, CUTS[what])

    async def unswept(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(leftovers, "sweep", unswept)
    with pytest.raises(Exception, match=r"ccnew|detach") as caught:
        await go_back(project, lease, before)
    assert type(caught.value).__name__ in ("Stranded", "Broken")


async def test_an_invalid_index_that_was_there_before_or_is_elsewhere_stays(project: Project):
    await project.execute(
        "CREATE TABLE t (a int); CREATE INDEX i ON t (a); CREATE INDEX own_ccnew ON t (a);"
        "CREATE INDEX old_ccnew ON t (a); CREATE TABLE u (a int); CREATE INDEX u_ccnew ON u (a)"
    )
    project.write(1, "REINDEX TABLE CONCURRENTLY t;", "SELECT 1;")
    invalidate = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass"
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute(invalidate, "old_ccnew")
        await superuser.execute("SELECT txid_current()")
        lease = await project.begin()
        await superuser.execute(invalidate, "u_ccnew")
        await go_on(project, lease)
    assert sorted(map(str, await half(project))) == ["old_ccnew", "u_ccnew"]
    assert await project.fetch("SELECT to_regclass('own_ccnew')::text") == [("own_ccnew",)]


@pytest.mark.parametrize("may", [True, False])
async def test_a_toast_tables_leftover_is_removed_where_the_role_may(
    project: Project, monkeypatch, caplog, may: bool
):
    made = "CREATE TABLE t (a text); CREATE INDEX i ON t (a)"
    cut = Cut(made=made, forward="REINDEX TABLE CONCURRENTLY t;", lock=READING, leaves="i_ccold")
    lease, before = await cut_off(project, cut, leaves=2)
    if may:
        monkeypatch.setenv("PROD_URL", project.database.superuser_url)
    await go_back(project, lease, before)
    left = [str(name) for name in await half(project)]
    assert len(left) == (0 if may else 1)
    for name in left:
        assert f"As a superuser run: DROP INDEX CONCURRENTLY IF EXISTS {name};" in caplog.text


@pytest.mark.parametrize(
    ("forward", "reverse"),
    [
        ("ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;", UNDO_DETACH),
        ("DROP INDEX CONCURRENTLY i;", "CREATE INDEX CONCURRENTLY i ON t (a);"),
        ("CREATE INDEX CONCURRENTLY j ON t (a);", "DROP INDEX CONCURRENTLY j;"),
        ("VACUUM t;", "SELECT 1;"),
        ("REINDEX TABLE CONCURRENTLY t;", "SELECT 1;"),
    ],
)
async def test_what_was_carried_out_and_not_recorded_is_not_done_twice(
    project: Project, forward: str, reverse: str
):
    await project.execute(f"{TABLE}; {PARTITIONED}")
    project.write(1, forward, reverse)
    before = await project.catalogue()
    lease = await project.begin()

    async def dying(conn, statement) -> None:
        await conn.execute(statement.text)
        raise ConnectionResetError("after the effect, before the record")

    (step,) = project.migrations()
    async with connect(project.url) as conn:
        with pytest.raises(Transient, match="before the record"):
            await runner(project, conn, lease, execute=dying).forward(step, position=1)
    await go_on(project, lease)
    assert [row.state for row in await project.rows(lease)] == ["applied"]
    (row,) = await project.rows(lease)
    async with connect(project.url) as conn:
        with pytest.raises(Transient, match="before the record"):
            await runner(project, conn, lease, execute=dying).reverse(row)
    await go_back(project, lease, before)


async def test_a_database_that_an_unrecorded_try_made_or_dropped_is_accepted_as_done(
    project: Project,
):
    name = f"{project.database.name}_beside"
    project.write(1, f"CREATE DATABASE {name};", f"DROP DATABASE {name};")
    before = await project.catalogue()
    lease = await project.begin()

    async def dying(conn, statement) -> None:
        await conn.execute(statement.text)
        raise ConnectionResetError("after the effect, before the record")

    (step,) = project.migrations()
    async with connect(project.database.superuser_url) as superuser:
        with pytest.raises(Transient):
            await runner(project, superuser, lease, execute=dying).forward(step, position=1)
        await runner(project, superuser, lease).forward(step, position=1)
        (row,) = await project.rows(lease)
        with pytest.raises(Transient):
            await runner(project, superuser, lease, execute=dying).reverse(row)
    await go_back(project, lease, before)
    assert await project.fetch("SELECT 1 FROM pg_database WHERE datname = $1", name) == []


async def test_the_first_try_accepts_nothing_as_done(project: Project):
    project.write(1, f"CREATE DATABASE {project.database.name};", "SELECT 1;")
    lease = await project.begin()
    (step,) = project.migrations()
    async with connect(project.database.superuser_url) as superuser:
        with pytest.raises(Broken, match="already exists"):
            await runner(project, superuser, lease).forward(step, position=1)


async def test_a_partition_that_was_never_detached_is_left_where_it_is(project: Project):
    await project.execute(PARTITIONED)
    forward = "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;"
    project.write(1, forward, UNDO_DETACH)
    before = await project.catalogue()
    lease = await project.begin()

    async def dying(*_: object) -> None:
        raise ConnectionResetError("before the effect")

    (step,) = project.migrations()
    async with connect(project.url) as conn:
        with pytest.raises(Transient):
            await runner(project, conn, lease, execute=dying).forward(step, position=1)
    await go_back(project, lease, before)


# ---------------------------------------------------------------- a runner that was killed


async def left_running(project: Project, other) -> tuple[object, object, asyncpg.Connection]:
    """A deploy whose runner is gone, while the server still builds its index for it."""
    await project.execute(TABLE)
    project.write(1, "CREATE INDEX CONCURRENTLY j ON t (a);", "DROP INDEX CONCURRENTLY j;")
    before = await project.catalogue()
    lease = await project.begin()
    await other.execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
    dead = await asyncpg.connect(
        project.url, server_settings={"application_name": f"airlock apply {lease.fence}"}
    )
    async with connect(project.url) as conn:

        async def building(conn: Conn, _: object) -> None:
            conn.terminate()
            sql = "CREATE INDEX CONCURRENTLY j ON t (a)"
            building.task = asyncio.create_task(dead.execute(sql))  # type: ignore[attr-defined]
            raise ConnectionResetError("killed")

        (step,) = project.migrations()
        with pytest.raises(Transient):
            await runner(project, conn, lease, execute=building).forward(step, position=1)
    async with connect(project.url) as conn:
        await waiting(conn, dead.get_server_pid())
    return lease, before, building.task  # type: ignore[attr-defined]


async def test_a_killed_runners_index_build_is_ended_and_swept_by_the_rollback(project: Project):
    async with asyncio.timeout(PATIENCE_S), connect(project.url) as other, other.transaction():
        lease, before, build = await left_running(project, other)
        assert await half(project) == ["j"]
        taken = await project.take_over(lease)
        going_back = asyncio.create_task(go_back(project, taken, before))
        with pytest.raises(asyncpg.PostgresError):
            await build
        # To drop an index concurrently waits for the writer, whose transaction ends here.
        await waiting_for_drop(project)
    await going_back
    assert await half(project) == []


async def waiting_for_drop(project: Project) -> None:
    async with connect(project.url) as conn:
        sql = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DROP INDEX%'"
            " AND wait_event_type = 'Lock' AND datname = current_database())"
        )
        await until(lambda: conn.fetchval(sql))


async def test_only_sessions_up_to_our_own_fence_are_ended(project: Project):
    names = {
        "airlock apply 7": False,
        "airlock rollback 7": False,
        "airlock apply 8": False,
        "airlock apply 9": True,
        "airlock apply": True,
        "airlock apply 7x": True,
        "airlock ledger": True,
    }
    lease = sessions.Lease(target="prod", deploy=1, fence=8)
    async with connect(project.url, purpose=sessions.apply_name(lease)) as ours:
        made = {
            name: await asyncpg.connect(project.url, server_settings={"application_name": name})
            for name in names
        }
        ended = await sessions.end_earlier(ours, lease)
        assert len(ended) == 3
        assert await ours.fetchval("SELECT 1") == 1
        for name, lives in names.items():
            if lives:
                assert await made[name].fetchval("SELECT 1") == 1, name
                await made[name].close()
            else:
                with pytest.raises((*DRIVER_ERRORS, OSError)):
                    await made[name].fetchval("SELECT 1")
                made[name].terminate()


async def test_a_session_that_does_not_end_is_named(project: Project, monkeypatch):
    lease = sessions.Lease(target="prod", deploy=1, fence=8)
    monkeypatch.setattr(sessions, "_END", f"{sessions._LEFT} LIMIT 0")
    async with connect(project.url, purpose="apply 7") as dead, connect(project.url) as ours:
        expected = rf"process {dead.get_server_pid()} \(airlock apply 7\) .* did not end"
        with pytest.raises(Transient, match=expected):
            await sessions.end_earlier(ours, lease, gone_s=0.1)


# ---------------------------------------------------------------- a failure that is no crash


async def test_a_rebuilt_index_that_does_not_get_through_in_time_leaves_nothing(project: Project):
    await project.execute(TABLE)
    project.write(1, "REINDEX TABLE CONCURRENTLY t;", "SELECT 1;")
    lease = await project.begin()
    (step,) = project.migrations()
    # It is the sweep's time as well.
    budget = Budget(**{**BUDGET.model_dump(), "build_timeout_s": 2})
    async with connect(project.url) as other, connect(project.url) as conn:
        blocking = other.transaction()
        await blocking.start()
        await other.execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
        work = Runner(url=project.url, conn=conn, lease=lease, budget=budget)
        building = asyncio.create_task(work.forward(step, position=1))
        await waiting_for_drop(project)
        await blocking.rollback()
        with pytest.raises(Broken, match="statement timeout"):
            await building
    assert await half(project) == []
