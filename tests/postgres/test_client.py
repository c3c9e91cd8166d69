"""The probe beside a deploy, as a process, on a real database and a real HTTP server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from airlock import client, ledger, settings
from airlock.client import channels
from airlock.client.felt import Channel, Felt
from airlock.ledger import Lease
from airlock.service import table
from tests import own
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.postgres.conftest import Project

HELD_MS = 3000

RUNNER = """
import asyncio, sys
from airlock import client
from airlock.ledger import Lease

async def main():
    lease = Lease(target="prod", deploy=int(sys.argv[1]), fence=int(sys.argv[2]))
    async with client.beside(lease):
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _probes_may_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ENDS_S", PATIENCE_S)


def waits_ms(project: Project, lease: Lease, within_s: float = 1.0) -> float:
    found = client.recent(project.target, lease.deploy, within_s=within_s)
    return -1.0 if found is None else found


async def measured(project: Project, lease: Lease) -> Felt:
    async with connect(project.url) as conn:
        found = await client.read(conn, lease.deploy)
    assert found is not None
    return found


def channel(felt: Felt, kind: str, name: str) -> Channel:
    return next(each for each in felt.channels if (each.kind, each.name) == (kind, name))


def probes(project: Project, lease: Lease) -> list[int]:
    """Those of this very project: each of them has a first deploy of prod."""
    wanted = client.command(lease)[1:]
    return [pid for pid in own.processes(project.root) if table.command_line(pid)[1:] == wanted]


async def test_who_holds_a_table_is_felt_on_that_table_alone(project: Project):
    await project.execute("CREATE TABLE held (i int); CREATE TABLE free (i int)")
    project.write(
        1, "ALTER TABLE held ADD COLUMN x int; ALTER TABLE free ADD COLUMN x int;", "SELECT 1;"
    )
    lease = await project.begin()
    async with client.beside(lease):
        await until(lambda: waits_ms(project, lease) > 0)
        async with (
            ledger.journal(project.target, lease, "apply_plan") as conn,
            conn.transaction(),
        ):
            await conn.execute("LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE")
            # Far longer than the other one waits for a turn on a busy machine.
            await until(lambda: waits_ms(project, lease) > HELD_MS)
    felt = await measured(project, lease)
    for kind in ("database read", "database write"):
        held = channel(felt, kind, "table public.held").during
        # Waited for from outside, which began a moment earlier.
        assert held.longest_ms > HELD_MS / 2
        assert channel(felt, kind, "table public.free").during.longest_ms < held.longest_ms / 2
        before = channel(felt, kind, "table public.held").before
        assert before.requests > 0
        assert before.longest_ms < held.longest_ms
    assert felt.longest is not None
    assert felt.longest.channel == "table public.held"
    assert felt.failed == 0
    assert list(felt.gaps) == []


@asynccontextmanager
async def answering(port: int) -> AsyncIterator[None]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_a_service_that_is_down_for_a_moment_fails_requests_and_is_waited_for(
    project: Project, port: int
):
    with (project.root / "airlock.toml").open("a") as config:
        config.write(f'[targets.prod.health]\nurl = "http://127.0.0.1:{port}/health"\n')
    lease = await project.begin()
    async with client.beside(lease):
        async with answering(port):
            await until(lambda: waits_ms(project, lease) > 0)
            await until(lambda: 0 < waits_ms(project, lease) < 200)
            async with ledger.journal(project.target, lease, "apply_plan"):
                pass
        # Those who come anew are refused: that is waited for as well.
        await until(lambda: waits_ms(project, lease, within_s=0.3) > 300)
        async with answering(port):
            await until(lambda: 0 < waits_ms(project, lease, within_s=0.3) < 200)
    felt = await measured(project, lease)
    service = channel(felt, "service read", "/health, new connections").during
    assert service.failed > 0
    assert service.longest_ms > 300
    assert felt.failed >= service.failed
    assert channel(felt, "database read", "Airlock's own table").during.failed == 0


async def test_a_probe_ends_with_its_runner_even_if_that_is_killed(project: Project):
    lease = await project.begin()
    runner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUNNER, str(lease.deploy), str(lease.fence))
    )
    try:
        await until(lambda: waits_ms(project, lease) > 0)
        assert len(probes(project, lease)) == 1
    finally:
        runner.kill()
        await runner.wait()
    await until(lambda: not probes(project, lease))
    felt = await measured(project, lease)
    assert [each.is_whole for each in felt.parts] == [True]
    assert felt.requests > 0
    assert list((project.target.state_dir / "prod" / "client").iterdir()) == []


async def test_a_probe_ends_when_another_runner_has_the_deploy_and_what_both_saw_adds_up(
    project: Project,
):
    lease = await project.begin()
    async with client.beside(lease):
        await until(lambda: waits_ms(project, lease) > 0)
        later = await project.take_over(lease)
        await until(lambda: not probes(project, lease))
    alone = (await measured(project, lease)).requests
    async with client.beside(later):
        await until(lambda: waits_ms(project, later) > 0)
    felt = await measured(project, lease)
    assert len(felt.parts) == 2
    assert felt.requests > alone > 0


async def test_a_probe_that_cannot_start_fails_nothing_and_the_ledger_says_why(
    project: Project, monkeypatch, caplog
):
    caplog.set_level(logging.ERROR, logger="airlock.client")
    lease = await project.begin()
    monkeypatch.setattr(client, "command", lambda lease: [str(project.root / "no such program")])
    async with client.beside(lease):
        pass
    said = (await measured(project, lease)).sentence
    assert said.startswith("Not measured: the probe did not start: ")
    monkeypatch.setattr(client, "command", lambda lease: [sys.executable, "-c", "1 / 0"])
    async with client.beside(lease):
        pass
    assert (await measured(project, lease)).sentence == (
        "Not measured: the probe ended with 1: ZeroDivisionError: division by zero"
    )


async def test_a_probe_that_does_not_end_even_killed_is_left_and_fails_nothing(
    project: Project, monkeypatch, caplog
):
    caplog.set_level(logging.ERROR, logger="airlock.client")
    monkeypatch.setattr(client, "ENDS_S", 0.1)
    monkeypatch.setattr(client, "GONE_S", 0.1)
    lease = await project.begin()
    # What it started has its last words' pipe, and lives on.
    started = project.root / "started"
    stuck = (
        "import pathlib, subprocess as s; sleeps = s.Popen(['sleep', '600'], stdout=s.DEVNULL);"
        f"pathlib.Path({str(started)!r}).write_text(str(sleeps.pid)); sleeps.wait()"
    )
    monkeypatch.setattr(client, "command", lambda lease: [sys.executable, "-c", stuck])
    try:
        async with client.beside(lease):
            await until(lambda: started.exists() and started.read_text())
        said = (await measured(project, lease)).sentence
        assert said == "Not measured: how the probe ended is not known: TimeoutError"
    finally:
        sleeps = int(started.read_text())
        os.kill(sleeps, signal.SIGKILL)
    await until(lambda: table.read(sleeps) is None)


async def test_a_full_disk_does_not_end_the_measuring(project: Project, monkeypatch):
    (project.target.state_dir / "prod").mkdir(parents=True)
    # No folder can be made there.
    (project.target.state_dir / "prod" / "client").touch()
    lease = await project.begin()
    async with client.beside(lease):
        await until(lambda: probes(project, lease))
        await asyncio.sleep(1.5)
        assert waits_ms(project, lease) == -1
        assert len(probes(project, lease)) == 1
    felt = await measured(project, lease)
    assert felt.requests > 0


async def test_its_own_table_can_be_written_where_all_tables_are_published(project: Project):
    lease = await project.begin()
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    async with client.beside(lease):
        await until(lambda: waits_ms(project, lease) > 0)
    own = channel(await measured(project, lease), "database write", "Airlock's own table")
    assert own.why_not == ""
    assert own.before.requests > 0


async def test_a_table_of_the_ledger_that_is_kept_gathers_no_sessions(project: Project):
    lease = await project.begin()
    ours = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'airlock client ledger'"
        " AND datname = current_database()"
    )
    async with client.beside(lease), connect(project.url) as other:
        await until(lambda: waits_ms(project, lease) > 0)
        await other.execute("BEGIN; LOCK airlock.deploy, airlock.client")
        # Two tries, and the beginning of a third.
        await asyncio.sleep(5.5)
        assert await other.fetchval(ours) <= 1
        await other.execute("ROLLBACK")
    assert (await measured(project, lease)).parts[0].is_whole


async def test_no_probe_runs_where_the_settings_say_so(project: Project):
    with (project.root / settings.CONFIG_NAME).open("a") as config:
        config.write("[targets.prod.probe]\nenabled = false\n")
    lease = await project.begin()
    async with client.beside(lease):
        assert probes(project, lease) == []
    assert "enabled is false" in (await measured(project, lease)).sentence


async def test_the_tables_that_a_plan_names_and_that_are_there_are_asked(project: Project):
    await project.execute(
        'CREATE TABLE altered (i int); CREATE TABLE "In Dex" (i int); CREATE TABLE gone (i int);'
        "CREATE TABLE parent (i int PRIMARY KEY); CREATE TABLE untouched (i int);"
        "CREATE VIEW seen AS SELECT 1"
    )
    project.write(
        1,
        'ALTER TABLE altered ADD COLUMN x int; CREATE INDEX ON "In Dex" (i);\n'
        "CREATE TABLE child (i int REFERENCES parent); DROP TABLE gone; DROP VIEW seen;",
        "SELECT 1;",
    )
    lease = await project.begin()
    async with connect(project.url) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        found = await channels.touched_tables(conn, row.planned)
    assert set(found) == {"public.altered", 'public."In Dex"', "public.gone", "public.parent"}
