"""Migrations with their ledger rows: all or nothing, resumed where they stopped, never half."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from airlock import apply, ledger, leftovers, migration, settings, syntax
from airlock.effects import needs_no_transaction
from airlock.errors import Broken, Refused, Transient
from airlock.measure import Measurement
from tests.patience import until
from tests.people import connect
from tests.postgres.conftest import Project, runner
from tests.unit.test_segments import IN_NONE, IN_ONE

A = ("CREATE TABLE a (id int);", "DROP TABLE a;")
B = ("CREATE TABLE b (id int);", "DROP TABLE b;")
INDEXED = "CREATE TABLE t (id int);\nCREATE INDEX CONCURRENTLY i ON t (id);\nCREATE TABLE u ();"
UNDO_INDEXED = "DROP TABLE u;\nDROP INDEX CONCURRENTLY i;\nDROP TABLE t;"


async def states(project: Project, lease) -> list[tuple[int, str, int]]:
    return [(row.version, row.state, row.segments_done) for row in await project.rows(lease)]


async def names(project: Project) -> set[str]:
    objects = (await project.catalogue()).objects
    return {key.split(".")[-1] for key in objects if key.startswith(("table public", "index"))}


# ---------------------------------------------------------------- what runs where


async def refused_in_a_transaction(conn, sql: str) -> bool:
    """Whether the server's word about the statement is that it may not stand in a transaction."""
    begun = conn.transaction()
    await begun.start()
    try:
        await conn.execute(sql)
    except asyncpg.ActiveSQLTransactionError:
        return True
    except asyncpg.PostgresError:
        return False
    finally:
        await begun.rollback()
    return False


async def test_the_server_agrees_about_what_cannot_run_in_a_transaction(project: Project, pg):
    async with connect(pg.url(project.database.name)) as superuser:
        await superuser.execute(
            "CREATE SCHEMA s; CREATE TABLE t (a int); CREATE INDEX i ON t (a);"
            "CREATE TYPE e AS ENUM ('a'); CREATE MATERIALIZED VIEW v AS SELECT 1 AS a;"
            "CREATE TABLE p (a int) PARTITION BY LIST (a);"
            "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
        )
        wrong = [
            sql
            for sql in (*IN_NONE, *IN_ONE)
            if "EXECUTE" not in sql
            and await refused_in_a_transaction(superuser, sql)
            is not needs_no_transaction(syntax.parse(sql)[0])
        ]
    assert wrong == []


# ---------------------------------------------------------------- one transaction


async def test_a_migration_and_its_row_are_committed_together(project: Project, conn):
    project.write(1, *A)
    lease = await project.begin()
    await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    (row,) = await project.rows(lease)
    assert (row.state, row.segments_done, row.label) == ("applied", 1, "001_step")
    assert row.forward == project.migrations()[0].forward
    assert row.reverse == "DROP TABLE a;\n"
    (done,) = await ledger.events(conn, lease.deploy)
    assert (done.phase, done.detail) == ("done", "001_step applied")


async def test_a_migration_that_fails_leaves_neither_change_nor_row(project: Project, conn):
    project.write(1, "CREATE TABLE a (id int);\nINSERT INTO a\nVALUES ('x');", A[1])
    lease = await project.begin()
    with pytest.raises(Broken) as caught:
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert str(caught.value).startswith(
        "001_step.sql, line 7: INSERT INTO a VALUES ('x') failed: invalid input syntax"
    )
    assert await states(project, lease) == []
    assert await names(project) == set()


async def test_a_failure_shows_the_servers_detail(project: Project, conn):
    project.write(1, "CREATE TABLE a (id int UNIQUE);\nINSERT INTO a VALUES (1), (1);", A[1])
    lease = await project.begin()
    with pytest.raises(Broken, match=r"Key \(id\)=\(1\) already exists"):
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)


DEFERRED = """CREATE TABLE a (id int UNIQUE, of int REFERENCES a (id) INITIALLY DEFERRED);
INSERT INTO a VALUES (1, 2);
COMMENT ON TABLE a IS 'the last statement';"""


async def test_a_commit_that_fails_is_not_laid_at_the_last_statements_door(project: Project, conn):
    project.write(1, DEFERRED, A[1])
    lease = await project.begin()
    with pytest.raises(Broken) as caught:
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert str(caught.value).startswith('001_step.sql: insert or update on table "a" violates')
    assert await states(project, lease) == []
    assert await names(project) == set()


async def test_a_migrations_text_reaches_the_ledger_whatever_is_in_it(project: Project, conn):
    forward = "SET standard_conforming_strings = off;\nCOMMENT ON SCHEMA public IS '\\\\''$1';"
    project.write(1, forward, "DROP TABLE a; -- $2 \\ 'quoted' %s {0}")
    lease = await project.begin()
    step = project.migrations()[0]
    await runner(project, conn, lease).forward(step, position=1)
    (row,) = await project.rows(lease)
    assert (row.forward, row.reverse) == (step.forward, step.reverse)


async def test_a_row_that_cannot_be_written_undoes_its_migration(
    project: Project, conn, monkeypatch
):
    def fails(*_: object, **__: object) -> str:
        return "SELECT 1 / 0"

    project.write(1, *A)
    lease = await project.begin()
    monkeypatch.setattr(ledger, "forward_record", fails)
    with pytest.raises(Broken):
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await names(project) == set()


async def test_what_is_applied_is_skipped_and_the_rest_goes_on(project: Project):
    project.write(1, *A)
    project.write(2, "CREATE TABLE b (id int);\nSELECT 1 / (SELECT count(*) FROM gate);", B[1])
    project.write(3, "CREATE TABLE c (id int);", "DROP TABLE c;")
    await project.execute("CREATE TABLE gate (id int)")
    lease = await project.begin()

    async def run_all() -> None:
        async with connect(project.url) as conn:
            for position, step in enumerate(project.migrations(), 1):
                await runner(project, conn, lease).forward(step, position=position)

    with pytest.raises(Broken, match="division by zero"):
        await run_all()
    assert await states(project, lease) == [(1, "applied", 1)]
    await project.execute("INSERT INTO gate VALUES (1)")
    await run_all()
    assert await states(project, lease) == [(n, "applied", 1) for n in (1, 2, 3)]


async def test_what_a_migration_sets_does_not_reach_the_next(project: Project, conn):
    before = await conn.fetchrow("SELECT current_user, current_setting('search_path') AS path")
    project.write(1, "SET search_path = pg_catalog;\nSET work_mem = '1MB';\nSELECT 1;", "SELECT 2;")
    await runner(project, conn, await project.begin()).forward(project.migrations()[0], position=1)
    assert await conn.fetchrow("SELECT current_user, current_setting('search_path') AS path") == (
        before
    )
    assert await conn.fetchval("SELECT current_setting('lock_timeout')") == "0"


PATHS = {
    "the database's": "CREATE TABLE t ();",
    "after RESET": "RESET search_path;\nCREATE TABLE t ();",
    "after RESET ALL": "SET search_path = public;\nRESET ALL;\nCREATE TABLE t ();",
    "SET in a transaction before": (
        "SET search_path = given;\nCREATE TABLE i ();\nVACUUM i;\nCREATE TABLE t ();"
    ),
    "after DISCARD ALL": "SET search_path = public;\nVACUUM;\nDISCARD ALL;\nCREATE TABLE t ();",
}


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("sql", PATHS.values(), ids=PATHS)
async def test_a_migration_looks_names_up_where_its_role_database_and_own_text_say(
    project: Project, sql: str, measured: bool
):
    path = "public" if "given" in sql else "given, public"
    await project.execute(
        f"CREATE SCHEMA given; ALTER DATABASE {project.database.name} SET search_path = {path}"
    )
    project.write(1, sql, "DROP TABLE given.t;")
    lease = await project.begin()
    async with connect(project.url) as conn:
        more = {"execute": Measurement(url=project.url).execute} if measured else {}
        run = runner(project, conn, lease, **more)
        await run.forward(project.migrations()[0], position=1)
        assert await conn.fetchval("SHOW search_path") == path
    assert await project.fetch("SELECT to_regclass('given.t') IS NOT NULL") == [(True,)]


async def test_what_a_migration_defers_to_its_commit_has_the_path_of_the_migration(
    project: Project,
):
    await project.execute(
        "CREATE TABLE deals (id int); CREATE TABLE heard (id int);"
        "CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO heard VALUES (NEW.id); RETURN NEW; END';"
        "CREATE CONSTRAINT TRIGGER hear AFTER INSERT ON deals DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hear();"
    )
    project.write(1, "INSERT INTO deals VALUES (1);", "DELETE FROM deals;")
    lease = await project.begin()
    async with connect(project.url) as conn:
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await project.fetch("SELECT id FROM heard") == [(1,)]


async def test_a_role_that_a_migration_takes_does_not_reach_the_next(project: Project):
    project.write(1, "SET ROLE postgres;\nCREATE TABLE a (id int);", A[1])
    lease = await project.begin()
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute("GRANT postgres TO owner")
        try:
            async with connect(project.url) as conn:
                await runner(project, conn, lease).forward(project.migrations()[0], position=1)
                assert await conn.fetchval("SELECT current_user") == "owner"
        finally:
            await superuser.execute("REVOKE postgres FROM owner")


async def test_a_role_without_rights_on_the_ledger_may_own_what_a_migration_makes(project: Project):
    project.write(1, "SET ROLE plain;\nCREATE TABLE a (id int);", A[1])
    lease = await project.begin()
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute(
            "CREATE ROLE plain; GRANT plain TO owner; GRANT CREATE ON SCHEMA public TO plain"
        )
        try:
            async with connect(project.url) as conn:
                await runner(project, conn, lease).forward(project.migrations()[0], position=1)
            made_by = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'a'"
            assert await superuser.fetchval(made_by) == "plain"
        finally:
            await superuser.execute("DROP OWNED BY plain; DROP ROLE plain")
    assert await states(project, lease) == [(1, "applied", 1)]


async def test_a_number_made_of_a_date_and_a_time_has_room(project: Project, conn):
    project.write(20260102030405, *A)
    lease = await project.begin()
    await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await states(project, lease) == [(20260102030405, "applied", 1)]


# ---------------------------------------------------------------- locks

ALTER = ("ALTER TABLE busy ADD COLUMN b int;", "ALTER TABLE busy DROP COLUMN b;")


async def test_a_lock_that_is_never_free_is_given_up_naming_who_holds_it(project: Project, conn):
    await project.execute("CREATE TABLE busy (id int)")
    project.write(1, *ALTER)
    lease = await project.begin()
    before = (await project.catalogue()).fingerprint
    async with connect(project.url, purpose="airlock test reader") as reader, reader.transaction():
        await reader.execute("SELECT * FROM busy")
        with pytest.raises(Transient) as caught:
            await runner(project, conn, lease).forward(project.migrations()[0], position=1)
        pid = reader.get_server_pid()
    said = str(caught.value)
    assert "001_step.sql: the lock was not to be had in 3 tries of 60 ms" in said
    assert f"process {pid} (owner, airlock test reader, idle in transaction" in said
    assert "Nothing changed." in said
    assert await states(project, lease) == []
    assert (await project.catalogue()).fingerprint == before


async def test_a_lock_that_becomes_free_in_between_is_had(project: Project, conn, caplog):
    await project.execute("CREATE TABLE busy (id int)")
    project.write(1, *ALTER)
    lease = await project.begin()
    caplog.set_level(logging.INFO, "airlock.apply")
    async with connect(project.url) as reader:
        blocking = reader.transaction()
        await blocking.start()
        await reader.execute("SELECT * FROM busy")
        budget = settings.Budget(lock_timeout_ms=60, tries=1000, pause_ms=5)
        work = apply.Runner(url=project.url, conn=conn, lease=lease, budget=budget)
        running = asyncio.create_task(work.forward(project.migrations()[0], position=1))
        await until(lambda: " waits for process" in caplog.text)
        assert not running.done()
        await blocking.rollback()
        await running
    assert await states(project, lease) == [(1, "applied", 1)]


@pytest.mark.parametrize(("as_superuser", "expected"), [(True, "12ms"), (False, "1s")])
async def test_deadlock_timeout_is_lowered_where_the_role_may(
    project: Project, as_superuser, expected
):
    # In tenths of the lock_timeout: an autovacuum gives way only after it.
    project.write(
        1,
        "CREATE TABLE seen AS SELECT current_setting('deadlock_timeout') AS deadlock,\n"
        "current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS stmt;",
        "DROP TABLE seen;",
    )
    lease = await project.begin()
    url = project.database.superuser_url if as_superuser else project.url
    async with connect(url) as conn:
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
        seen = await conn.fetchrow("SELECT deadlock, lock, stmt FROM seen")
    assert seen is not None
    assert tuple(seen) == (expected, "60ms", "10s")


async def test_a_statement_beyond_its_time_is_broken_and_not_tried_again(project: Project, conn):
    project.write(1, "SELECT pg_sleep(60);", "SELECT 1;")
    lease = await project.begin()
    # Enough for all else that is run.
    budget = settings.Budget(statement_timeout_s=1)
    work = apply.Runner(url=project.url, conn=conn, lease=lease, budget=budget)
    with pytest.raises(Broken, match="statement timeout"):
        await work.forward(project.migrations()[0], position=1)


async def test_a_connection_that_dies_is_transient_and_the_next_run_goes_on(project: Project):
    project.write(1, "CREATE TABLE a (id int);\nSELECT pg_sleep(60);", A[1])
    project.write(2, *B)
    lease = await project.begin()
    async with connect(project.url) as conn, connect(project.database.superuser_url) as superuser:
        work = runner(project, conn, lease).forward(project.migrations()[0], position=1)
        running = asyncio.create_task(work)
        await project.sleeps()
        await superuser.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
        with pytest.raises(Transient):
            await running
    assert await states(project, lease) == []
    async with connect(project.url) as conn:
        await runner(project, conn, lease).forward(project.migrations()[1], position=2)


async def test_a_cancelled_migration_leaves_nothing(project: Project):
    project.write(1, "CREATE TABLE a (id int);\nSELECT pg_sleep(60);", A[1])
    lease = await project.begin()
    async with connect(project.url) as conn:
        work = runner(project, conn, lease).forward(project.migrations()[0], position=1)
        running = asyncio.create_task(work)
        await project.sleeps()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert await states(project, lease) == []
    assert await names(project) == set()


# ---------------------------------------------------------------- outside a transaction


async def test_a_concurrent_index_is_announced_before_and_recorded_after(project: Project, conn):
    project.write(1, INDEXED, UNDO_INDEXED)
    lease = await project.begin()
    seen: list[list[tuple[int, str, int]]] = []

    async def watching(conn, statement) -> None:
        seen.append(await states(project, lease))
        await conn.execute(statement.text)

    work = runner(project, conn, lease, execute=watching)
    await work.forward(project.migrations()[0], position=1)
    assert seen == [[], [(1, "started", 1)], [(1, "started", 2)]]
    assert await states(project, lease) == [(1, "applied", 3)]


async def interrupted(project: Project, conn, crash: str):
    """The ledger as a crash during the index build leaves it, and what the crash left."""
    project.write(1, INDEXED, UNDO_INDEXED)
    lease = await project.begin()
    step = project.migrations()[0]
    await conn.execute("CREATE TABLE t (id int)")
    await conn.execute(ledger.forward_record(lease, step, position=1, done=1, total=3))
    await leave(project, conn, crash)
    return lease, step


async def leave(project: Project, conn, crash: str) -> None:
    if crash == "a finished index":
        await conn.execute("CREATE INDEX i ON t (id)")
    if crash == "an invalid index":
        await invalid_index(project)


async def invalid_index(project: Project) -> None:
    async with connect(project.url) as conn:
        await conn.execute("INSERT INTO t VALUES (1), (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON t (id)")
        assert await is_valid(conn) is False
        await conn.execute("DELETE FROM t")


async def is_valid(conn) -> bool | None:
    return await conn.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('i')"
    )


CRASHES = ["nothing", "a finished index", "an invalid index"]


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_crash_that_left_something_is_repaired_by_the_next_run(
    project: Project, conn, crash
):
    lease, step = await interrupted(project, conn, crash)
    await runner(project, conn, lease).forward(step, position=1)
    assert await states(project, lease) == [(1, "applied", 3)]
    assert await is_valid(conn)
    assert await names(project) == {"t", "i", "u"}


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_crash_that_left_something_can_be_undone(project: Project, conn, crash):
    lease, _ = await interrupted(project, conn, crash)
    (row,) = await project.rows(lease)
    await runner(project, conn, lease).reverse(row)
    assert await states(project, lease) == [(1, "rolled_back", 1)]
    assert await names(project) == set()


GUARDED = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (id);"


async def test_if_not_exists_does_not_accept_an_invalid_index(project: Project, conn):
    await conn.execute("CREATE TABLE t (id int)")
    await invalid_index(project)
    project.write(1, GUARDED, "DROP INDEX CONCURRENTLY i;")
    lease = await project.begin()
    await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await is_valid(conn)


async def test_without_the_sweep_it_would(project: Project, conn, monkeypatch):
    async def unswept(*_: object, **__: object) -> None: ...

    await conn.execute("CREATE TABLE t (id int)")
    await invalid_index(project)
    project.write(1, GUARDED, "DROP INDEX CONCURRENTLY i;")
    lease = await project.begin()
    monkeypatch.setattr(leftovers, "sweep", unswept)
    await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await states(project, lease) == [(1, "applied", 1)]
    assert await is_valid(conn) is False


@pytest.mark.parametrize("schema", ["public", 'odd "name"'])
async def test_a_concurrent_index_that_fails_is_swept_away(project: Project, conn, schema):
    quoted = '"' + schema.replace('"', '""') + '"'
    await conn.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}; CREATE TABLE {quoted}.t (id int)")
    await conn.execute(f"INSERT INTO {quoted}.t VALUES (1), (1)")
    sql = f'CREATE UNIQUE INDEX CONCURRENTLY "I i" ON {quoted}.t (id);'
    project.write(1, sql, f'DROP INDEX CONCURRENTLY {quoted}."I i";')
    lease = await project.begin()
    with pytest.raises(
        Broken, match=r"001_step\.sql, line 6: CREATE UNIQUE INDEX .*Key \(id\)=\(1\) is"
    ):
        await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await states(project, lease) == [(1, "started", 0)]
    assert await conn.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


async def test_dropping_concurrently_what_is_gone_passes_when_it_is_run_again(
    project: Project, conn
):
    await conn.execute("CREATE TABLE t (id int); CREATE INDEX i ON t (id)")
    reverse = "CREATE INDEX CONCURRENTLY i ON t (id);\nSELECT 1;"
    project.write(1, "DROP INDEX CONCURRENTLY i;", reverse)
    lease = await project.begin()
    step = project.migrations()[0]
    await conn.execute(ledger.forward_record(lease, step, position=1, done=0, total=1))
    await conn.execute("DROP INDEX i")
    await runner(project, conn, lease).forward(step, position=1)
    assert await states(project, lease) == [(1, "applied", 1)]


async def test_a_half_done_reverse_is_finished_from_where_it_stopped(project: Project, conn):
    project.write(1, INDEXED, UNDO_INDEXED)
    lease = await project.begin()
    work = runner(project, conn, lease)
    await work.forward(project.migrations()[0], position=1)
    await conn.execute("DROP TABLE u; DROP INDEX i")
    (row,) = await project.rows(lease)
    await conn.execute(ledger.reverse_record(lease, row, done=1, total=3))
    (row,) = await project.rows(lease)
    await work.reverse(row)
    assert await states(project, lease) == [(1, "rolled_back", 3)]
    assert await names(project) == set()


async def test_only_what_is_missing_is_forgiven_to_a_half_done_migration(project: Project, conn):
    lease, _ = await interrupted(project, conn, "nothing")
    (row,) = await project.rows(lease)
    await conn.execute("CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(Broken, match=r"ROLLBACK NOTES of 001_step, line 3: DROP TABLE t failed"):
        await runner(project, conn, lease).reverse(row)
    assert "t" in await names(project)


async def test_the_reverse_of_a_whole_migration_forgives_nothing(project: Project, conn):
    project.write(1, *A)
    lease = await project.begin()
    work = runner(project, conn, lease)
    await work.forward(project.migrations()[0], position=1)
    await conn.execute("DROP TABLE a")
    (row,) = await project.rows(lease)
    with pytest.raises(Broken, match="does not exist"):
        await work.reverse(row)
    assert await states(project, lease) == [(1, "applied", 1)]


def test_a_script_that_names_no_index_is_refused_before_it_runs(tmp_path):
    path = tmp_path / "001_a.sql"
    path.write_text("CREATE INDEX CONCURRENTLY ON t (a);\n-- ROLLBACK NOTES\n-- SELECT 1;\n")
    with pytest.raises(Refused, match="no name"):
        migration.read(path)
