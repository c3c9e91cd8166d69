"""How hard a backfill works: as much as fits, and not while standbys or clients wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airlock import server, throttle
from airlock.errors import Transient
from airlock.postgres import Conn
from airlock.settings import BackfillSettings
from airlock.throttle import Lag, Throttle
from tests.conftest import TEST_SETTINGS
from tests.patience import until
from tests.people import connect
from tests.postgres.conftest import Project, runner
from tests.postgres.test_backfill import count_up, counted

HASTY = BackfillSettings(rest=0, max_wait_s=0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LOOK_S", 0.01)


async def test_a_batch_grows_into_its_time_and_shrinks_out_of_it(conn: Conn):
    work = Throttle(limits=BackfillSettings(batch_ms=200, rest=0))
    sizes = [work.size(5000)]
    for took_s in (0.05, 0.05, 0.05, 0.2, 0.4, 10, 10):
        await work.rest(conn, took_s)
        sizes.append(work.size(5000))
    # By no more than twice at once, and never beyond what the header says.
    assert sizes == [1000, 2000, 4000, 5000, 5000, 2500, 1250, 625]
    assert work.size(7) == 7


async def test_it_waits_until_clients_do_not(conn: Conn, caplog):
    waits = iter([None, 2000.0, 1500.0, 20.0])
    work = Throttle(limits=BackfillSettings(batch_ms=200, rest=0), stall_ms=lambda: next(waits))
    caplog.set_level(logging.INFO, "airlock.throttle")
    await work.rest(conn, 0.2)
    assert (work.size(5000), caplog.text) == (1000, "")
    await work.rest(conn, 0.2)
    assert work.size(5000) == 250
    assert "Waiting: a client waited 2000 ms, max_stall_ms is 1000" in caplog.text
    assert next(waits, "used up") == "used up"


async def test_it_gives_up_in_time_and_the_way_back_does_not(conn: Conn, caplog):
    with pytest.raises(Transient, match=r"still a client waited 2000 ms.*goes on where"):
        await Throttle(limits=HASTY, stall_ms=lambda: 2000.0).rest(conn, 0)
    await Throttle(limits=HASTY, stall_ms=lambda: 2000.0, insists=True).rest(conn, 0)
    assert "The way back goes on: after 0.05 s still a client" in caplog.text


async def test_the_way_back_waits_once_for_who_does_not_recover(conn: Conn, caplog):
    waits = iter([2000.0, 2000.0, 2000.0, 20.0, 2000.0, 20.0])
    limits = BackfillSettings(rest=0, max_wait_s=0.001)
    work = Throttle(limits=limits, stall_ms=lambda: next(waits), insists=True)
    for _ in range(2):
        await work.rest(conn, 0)
    assert caplog.text.count("The way back goes on") == 1
    await work.rest(conn, 0)
    assert next(waits) == 20.0, "who does not recover is looked at once after each batch"


async def test_a_backfill_that_gave_up_goes_on_later(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    stalled = Throttle(limits=HASTY, stall_ms=lambda: 2000.0)
    with pytest.raises(Transient):
        await runner(project, conn, lease, throttle=stalled).forward(step, position=1)
    assert await counted(conn) == {0: 21, 1: 4}
    await runner(project, conn, lease, throttle=Throttle(limits=HASTY)).forward(step, position=1)
    assert await counted(conn) == {1: 25}


async def test_a_client_that_keeps_a_row_is_waited_for(project: Project, conn: Conn):
    lease, step = await count_up(project, conn)
    patient = Throttle(limits=BackfillSettings(rest=0))
    async with connect(project.url) as client:
        kept = client.transaction()
        await kept.start()
        await client.execute("SELECT FROM deals WHERE id = 100 FOR UPDATE")
        with pytest.raises(Transient, match="the lock was not to be had"):
            # On the clone nobody else has locks.
            await runner(project, conn, lease).forward(step, position=1)
        assert await counted(conn) == {0: 17, 1: 8}
        work = runner(project, conn, lease, throttle=patient).forward(step, position=1)
        running = asyncio.create_task(work)
        # Longer than all tries of one transaction.
        await asyncio.sleep(0.4)
        assert not running.done()
        await kept.rollback()
        await running
    assert await counted(conn) == {1: 25}


# ---------------------------------------------------------------- standbys


@pytest.fixture
async def standby(pg: server.Server, tmp_path: Path) -> AsyncIterator[server.Server]:
    """A standby of the test server, which stops to replay when it is told to."""
    folder = tmp_path / "standby"
    copy = [str(pg.binaries.tool("pg_basebackup")), f"--pgdata={folder}", "--checkpoint=fast"]
    made = await asyncio.create_subprocess_exec(
        *copy, "--write-recovery-conf", "--no-sync", f"--dbname={pg.url()}"
    )
    assert await made.wait() == 0
    async with (
        server.running(pg.binaries, folder, settings=TEST_SETTINGS) as found,
        connect(pg.url()) as primary,
    ):
        await until(lambda: primary.fetchval("SELECT min(replay_lsn) FROM pg_stat_replication"))
        yield found


async def paused(standby: Conn) -> bool:
    return await standby.fetchval("SELECT pg_get_wal_replay_pause_state()") == "paused"


async def is_behind(lag: Lag, primary: Conn, beyond_s: float) -> bool:
    return await lag.read(primary) > beyond_s


async def has_caught_up(lag: Lag, primary: Conn) -> bool:
    await lag.read(primary)
    return not lag._written


async def test_a_standby_that_stands_still_falls_behind_whatever_it_says(
    project: Project, conn: Conn, standby: server.Server
):
    async with (
        connect(project.database.superuser_url) as primary,
        connect(standby.url()) as other,
    ):
        await other.execute("SELECT pg_wal_replay_pause()")
        await until(lambda: paused(other))
        await conn.execute("CREATE TABLE written AS SELECT 1 AS a")
        lag = Lag()
        said_s = await lag.read(primary)
        await until(lambda: is_behind(lag, primary, said_s))
        work = Throttle(limits=HASTY.model_copy(update={"max_lag_s": 1e-9}))
        await work._lag.read(primary)
        with pytest.raises(Transient, match=r"standby or subscriber is \d+\.\d s behind"):
            await work.rest(primary, 0)
        await other.execute("SELECT pg_wal_replay_resume()")
        await until(lambda: has_caught_up(lag, primary))


async def test_a_role_that_may_not_look_at_standbys_is_told_so_once(
    project: Project, conn: Conn, standby: server.Server, caplog
):
    lag = Lag()
    assert (await lag.read(conn), await lag.read(conn)) == (0, 0)
    assert caplog.text.count("GRANT pg_monitor TO it") == 1
    assert standby.is_running
