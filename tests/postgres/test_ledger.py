"""The ledger: one open deploy, one holder, and nobody who writes after being taken over."""

from __future__ import annotations

import asyncio

import pytest

from airlock import ledger, lock, postgres
from airlock.catalogue import Catalogue
from airlock.errors import Broken, LeaseLost, Refused, Transient
from airlock.ledger import Delivery
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.postgres.conftest import Project, runner

ADD = ("CREATE TABLE a (id int);", "DROP TABLE a;")


# ---------------------------------------------------------------- its tables


async def test_it_is_created_once_and_found_afterwards(conn):
    assert not await ledger.exists(conn)
    assert await ledger.recent(conn) == ()
    assert await ledger.applied(conn) == ()
    assert await ledger.last_seen(conn) is None
    await ledger.ensure(conn)
    await ledger.ensure(conn)
    assert await ledger.exists(conn)
    assert await conn.fetchval("SELECT count(*) FROM airlock.ledger") == ledger.VERSION


async def test_two_runners_may_create_it_in_the_same_moment(project: Project):
    async def create() -> None:
        async with connect(project.url) as conn:
            await ledger.ensure(conn)

    await asyncio.gather(*(create() for _ in range(4)))
    assert await project.fetch("SELECT version FROM airlock.ledger ORDER BY version") == [
        (number,) for number in range(1, ledger.VERSION + 1)
    ]


async def test_one_of_a_newer_version_is_refused(conn):
    await ledger.ensure(conn)
    await conn.execute("INSERT INTO airlock.ledger (version) VALUES (99)")
    with pytest.raises(
        Refused, match=rf"version 99; this Airlock writes version {ledger.VERSION}\."
    ):
        await ledger.ensure(conn)


async def test_an_upgrade_waits_for_a_dump_only_so_long(project: Project, conn, monkeypatch):
    monkeypatch.setattr(ledger, "UPGRADE_LOCK_MS", 50)
    await conn.execute(postgres.query("ledger_1") + postgres.query("ledger_2"))
    async with connect(project.url) as dump, asyncio.timeout(PATIENCE_S):
        await dump.execute("BEGIN; LOCK TABLE airlock.deploy IN ACCESS SHARE MODE")
        with pytest.raises(Transient, match=r"version 2 could not be upgraded.*a dump"):
            await ledger.ensure(conn)
        await dump.execute("ROLLBACK")
        await ledger.ensure(conn)
    assert await ledger.version(conn) == ledger.VERSION


async def test_a_role_that_may_not_create_it_is_told_the_grant(project: Project):
    database = project.database
    async with connect(database.superuser_url) as superuser:
        await superuser.execute(f'ALTER DATABASE "{database.name}" OWNER TO postgres')
        await superuser.execute(f'REVOKE CREATE ON DATABASE "{database.name}" FROM PUBLIC, owner')
    async with connect(project.url) as conn:
        with pytest.raises(Refused) as caught:
            await ledger.ensure(conn)
    grant = f'GRANT CREATE ON DATABASE "{database.name}" TO "owner";'
    assert grant in str(caught.value)
    async with connect(database.superuser_url) as superuser:
        await superuser.execute(grant)
    async with connect(project.url) as conn:
        await ledger.ensure(conn)


# ---------------------------------------------------------------- one deploy


async def test_a_second_deploy_is_refused_while_one_is_open(project: Project):
    lease = await project.begin()
    with pytest.raises(Refused, match=r"Another deploy of prod is open.*airlock status prod"):
        await project.begin()
    async with connect(project.url) as conn:
        await ledger.advance(conn, lease, "failed")
    assert (await project.begin()).deploy > lease.deploy


async def test_a_stranded_deploy_stays_open(project: Project, conn):
    await ledger.advance(conn, await project.begin(), "stranded", failure="x")
    assert (await ledger.recent(conn))[0].is_open
    with pytest.raises(Refused):
        await project.begin()


async def test_a_deploy_comes_back_as_it_was_written(project: Project, conn):
    project.write(1, *ADD)
    lease = await project.begin()
    await ledger.advance(conn, lease, "applying", failure="a 'quoted' \\ failure")
    row = await ledger.deploy(conn, lease.deploy)
    assert (row.state, row.failure, row.finished_at) == ("applying", "a 'quoted' \\ failure", None)
    assert row.planned.migrations == project.migrations()
    await ledger.advance(conn, lease, "succeeded")
    assert (await ledger.deploy(conn, lease.deploy)).finished_at is not None
    with pytest.raises(Refused, match="no deploy 999"):
        await ledger.deploy(conn, 999)


# ---------------------------------------------------------------- the fence


async def everything(project: Project) -> list[list[tuple[object, ...]]]:
    return [
        await project.fetch(f"SELECT t::text FROM airlock.{table} AS t ORDER BY 1")
        for table in ("deploy", "migration", "event", "alert", "kept")
    ]


async def test_a_runner_that_was_taken_over_can_write_nothing(project: Project, conn):
    project.write(1, *ADD)
    lost = await project.begin()
    await project.take_over(lost)
    before = await everything(project)
    schema = (await project.catalogue()).fingerprint

    with pytest.raises(LeaseLost, match=r"taken over: fence \d+ became \d+.*airlock status prod"):
        await ledger.advance(conn, lost, "applying")
    with pytest.raises(LeaseLost):
        await ledger.note(conn, lost, failure="x")
    with pytest.raises(LeaseLost):
        async with ledger.journal(project.target, lost, "apply_plan"):
            pytest.fail("the step began")
    with pytest.raises(LeaseLost):
        await runner(project, conn, lost).forward(project.migrations()[0], position=1)
    await ledger.event(conn, lost, "apply_plan", "done")

    assert await everything(project) == before
    assert (await project.catalogue()).fingerprint == schema


async def test_a_runner_that_is_taken_over_in_a_step_leaves_no_result_of_it(project: Project, conn):
    lost = await project.begin()
    async with ledger.journal(project.target, lost, "rehearse"):
        await project.take_over(lost)
    with pytest.raises(LeaseLost):
        async with ledger.journal(project.target, lost, "apply_plan"):
            pass
    phases = [(each.step, each.phase) for each in await ledger.events(conn, lost.deploy)]
    assert phases == [("rehearse", "intent")]
    assert await ledger.failed_step(conn, lost.deploy) is None


async def test_without_the_fence_check_it_would_commit_its_migration(
    project: Project, conn, monkeypatch
):
    async def unchecked(conn, _: object, *, begin: str) -> None:
        await conn.execute(begin)

    project.write(1, *ADD)
    lost = await project.begin()
    await project.take_over(lost)
    monkeypatch.setattr(ledger, "check_fence", unchecked)
    await runner(project, conn, lost).forward(project.migrations()[0], position=1)
    assert "table public.a" in (await project.catalogue()).objects


async def test_who_takes_over_waits_for_the_migration_that_is_being_committed(project: Project):
    project.write(1, "CREATE TABLE a (id int);\nSELECT pg_sleep(1);", "DROP TABLE a;")
    lease = await project.begin()
    async with connect(project.url) as conn:
        work = runner(project, conn, lease).forward(project.migrations()[0], position=1)
        first = asyncio.create_task(work)
        await project.sleeps()
        await project.take_over(lease)
        # Had it not waited, this runner would have failed at its fence, or committed unseen.
        assert [row.state for row in await project.rows(lease)] == ["applied"]
        await first


# ---------------------------------------------------------------- the lock


async def test_the_hold_excludes_a_second_holder_and_names_the_first(project: Project):
    async with lock.hold(project.target):
        pid = await lock_holder(project)
        with pytest.raises(Transient, match=rf"of prod is running \(server process {pid}\)"):
            async with lock.hold(project.target):
                pytest.fail("two held it")
    async with lock.hold(project.target):
        pass


async def test_the_hold_can_be_waited_for(project: Project):
    async with lock.hold(project.target):
        waiting = asyncio.create_task(enter(project))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting


async def enter(project: Project, *, wait_s: float = PATIENCE_S) -> None:
    async with lock.hold(project.target, wait_s=wait_s):
        pass


async def lock_holder(project: Project) -> int:
    async with connect(project.url) as conn:
        return await conn.fetchval(postgres.query("lock_holder"), *lock.LOCK)


async def cut_the_hold(project: Project) -> None:
    pid = await lock_holder(project)
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute("SELECT pg_terminate_backend($1, 60000)", pid)


async def test_a_server_that_restarts_while_the_hold_is_waited_for_is_transient(project: Project):
    async def wait() -> None:
        async with lock.hold(project.target, wait_s=PATIENCE_S):
            pass

    async with lock.hold(project.target), connect(project.database.superuser_url) as superuser:
        holder = await lock_holder(project)
        waiting = asyncio.create_task(wait())
        end_the_other = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'airlock lock' AND pid <> $1"
            " AND datname = current_database()"
            # Not while it connects, which says so.
            " AND query LIKE '%pg_try_advisory_lock%'"
        )
        await until(lambda: superuser.fetchval(end_the_other, holder))
        with pytest.raises(Transient, match="waiting for the lock of prod"):
            await waiting


async def test_a_hold_whose_connection_is_cut_is_taken_again(project: Project, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    async with lock.hold(project.target):
        first = await lock_holder(project)
        await cut_the_hold(project)

        async def is_taken_again() -> bool:
            return await lock_holder(project) not in (None, first)

        await until(is_taken_again)
        with pytest.raises(Transient, match="is running"):
            await enter(project, wait_s=0)


async def test_a_runner_whose_lock_somebody_else_has_by_now_is_ended(project: Project, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.3)
    monkeypatch.setattr(lock, "REGAIN_S", 0.1)
    cleared_up = asyncio.Event()

    async def work() -> None:
        async with lock.hold(project.target):
            pid = await lock_holder(project)
            async with connect(project.database.superuser_url) as other:
                # In one message, so that our heart cannot come in between.
                assert await other.fetchval(
                    "SELECT pg_terminate_backend($1, 60000) AND pg_try_advisory_lock($2, $3)",
                    pid,
                    *lock.LOCK,
                )
                try:
                    await asyncio.sleep(PATIENCE_S)
                finally:
                    cleared_up.set()

    with pytest.raises(LeaseLost, match=r"The lock was lost\. Another deploy"):
        await work()
    assert cleared_up.is_set()


async def test_a_runner_whose_deploy_was_taken_over_is_ended(project: Project, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    lease = await project.begin()

    async def work() -> None:
        async with lock.heartbeat(project.target, lease):
            await project.take_over(lease)
            await asyncio.sleep(PATIENCE_S)

    with pytest.raises(LeaseLost, match="was taken over: fence"):
        await work()


async def test_a_hold_that_goes_with_its_database_is_not_taken_again(project: Project, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    async with lock.hold(project.target, regain=False):
        await cut_the_hold(project)
        await asyncio.sleep(0.2)
        await enter(project)


async def test_a_heartbeat_beats_and_passes_over_a_locked_row(project: Project, conn, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    lease = await project.begin()
    ask = "SELECT heartbeat_at FROM airlock.deploy WHERE id = $1"
    first = await conn.fetchval(ask, lease.deploy)
    async with connect(project.url) as locking, lock.heartbeat(project.target, lease):

        async def has_beaten() -> bool:
            return await conn.fetchval(ask, lease.deploy) > first

        await until(has_beaten)
        async with locking.transaction():
            await ledger.check_fence(locking, lease)
            locked = await conn.fetchval(ask, lease.deploy)
            await asyncio.sleep(0.2)
            assert await conn.fetchval(ask, lease.deploy) == locked
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
            assert await conn.fetchval(waiting) == 0


async def test_a_heartbeat_that_fails_does_not_fail_the_deploy(project: Project, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    lease = await project.begin()
    async with lock.heartbeat(project.target, lease):
        monkeypatch.setenv("PROD_URL", "postgresql://owner@127.0.0.1:1/nowhere")
        await asyncio.sleep(0.1)


# ---------------------------------------------------------------- what it keeps


async def test_events_come_in_the_order_in_which_they_were_written(project: Project, conn):
    lease = await project.begin()
    async with ledger.journal(project.target, lease, "take_snapshot", "why"):
        pass
    with pytest.raises(Broken):
        async with ledger.journal(project.target, lease, "rehearse"):
            raise Broken("it broke")
    found = await ledger.events(conn, lease.deploy)
    assert [(each.step, each.phase, each.detail) for each in found] == [
        ("take_snapshot", "intent", "why"),
        ("take_snapshot", "done", ""),
        ("rehearse", "intent", ""),
        ("rehearse", "failed", "it broke"),
    ]
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert await ledger.failed_step(conn, lease.deploy) == "rehearse"


async def test_a_step_whose_connection_died_still_leaves_its_failure(project: Project, conn):
    lease = await project.begin()

    async def step() -> None:
        async with ledger.journal(project.target, lease, "rehearse") as used:
            async with connect(project.database.superuser_url) as superuser:
                await superuser.execute("SELECT pg_terminate_backend($1)", used.get_server_pid())
            await used.fetchval("SELECT 1")

    with pytest.raises(Transient, match="ledger of prod"):
        await step()
    assert await ledger.failed_step(conn, lease.deploy) == "rehearse"


async def test_a_missing_program_in_a_step_is_not_called_the_ledgers_fault(project: Project):
    lease = await project.begin()
    with pytest.raises(FileNotFoundError):
        async with ledger.journal(project.target, lease, "restart_service"):
            raise FileNotFoundError("python3")


async def test_a_catalogue_is_kept_once_under_its_fingerprint(project: Project, conn):
    await ledger.ensure(conn)
    await conn.execute("CREATE TABLE a (id int)")
    catalogue = await project.catalogue()
    fingerprint = await ledger.save_catalogue(conn, catalogue)
    assert await ledger.save_catalogue(conn, catalogue) == fingerprint
    assert await ledger.load_catalogue(conn, fingerprint) == Catalogue(
        objects=dict(catalogue.objects)
    )
    with pytest.raises(Refused, match="no catalogue 000"):
        await ledger.load_catalogue(conn, "000")


async def test_an_alert_waits_once_per_key_until_it_is_delivered(project: Project, conn):
    lease = await project.begin()
    for body in ('{"n": 1}', '{"n": 2}'):
        await ledger.enqueue_alert(conn, lease.deploy, "key", body)
    (queued,) = await ledger.undelivered(conn)
    assert queued.body == '{"n": 1}'
    for error in ("HTTP status 500", None):
        await ledger.record_delivery(conn, queued.id, "slack", error)
    assert await project.fetch("SELECT channel, attempts, last_error FROM airlock.delivery") == [
        ("slack", 2, None)
    ]
    await ledger.address(conn, [Delivery(alert=queued.id, channel="webhook")])
    await ledger.close_alerts(conn, [queued.id], ["slack", "webhook"])
    assert await ledger.undelivered(conn) == (queued,)
    await ledger.close_alerts(conn, [queued.id], ["slack"])
    assert await ledger.undelivered(conn) == ()


async def test_a_ledger_of_the_first_version_is_upgraded_with_what_it_holds(project: Project, conn):
    await conn.execute(postgres.query("ledger_1"))
    await conn.execute(
        "INSERT INTO airlock.deploy (target, requester, reason, request, state, holder, fence,"
        " finished_at) VALUES ('prod', '', '', '{}', 'failed', 'h', 1, now())"
    )
    (before,) = await ledger.recent(conn)
    await ledger.ensure(conn)
    assert await ledger.version(conn) == ledger.VERSION
    (after,) = await ledger.recent(conn)
    assert (after.id, after.kind) == (before.id, "deploy")
