"""Servers that Airlock starts and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from airlock import binaries, server
from airlock.errors import Refused
from tests.conftest import Database
from tests.patience import PATIENCE_S, until
from tests.people import connect


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_the_owner_of_a_test_database_is_an_ordinary_role(database: Database) -> None:
    async with connect(database.url) as conn:
        row = await conn.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolname FROM pg_catalog.pg_roles WHERE rolname = user"
        )
    assert tuple(row) == (False, False, "owner")


async def test_the_loopback_port_wants_a_password(database: Database) -> None:
    async with connect(database.tcp_url) as conn:
        assert await conn.fetchval("SELECT current_database()") == database.name
    with pytest.raises(Refused, match="password"):
        async with connect(database.server.tcp_url(database.name, "owner", "wrong")):
            pass


@pytest.mark.parametrize("major", [15, 16, 18])
async def test_a_server_of_each_version_starts(
    pg_of: Callable[[int | None], Awaitable[server.Server]], major: int
) -> None:
    pg = await pg_of(major)
    async with connect(pg.url()) as conn:
        assert conn.get_server_version().major == major
    assert stat.S_IMODE(pg.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.log_file(pg.data_dir).stat().st_mode) == 0o600


async def test_a_long_path_gets_a_short_socket_and_nothing_is_left(tmp_path: Path) -> None:
    data_dir = tmp_path / ("a" * 90) / "data"
    found = binaries.find()
    await server.initdb(found, data_dir, checksums=False)
    async with server.running(found, data_dir, settings=server.SCRATCH_SETTINGS) as pg:
        assert len(str(pg.socket_dir)) < 60
        async with connect(pg.url()) as conn:
            assert await conn.fetchval("SELECT 1") == 1
        with pytest.raises(Refused, match="Unix socket only"):
            pg.tcp_url("postgres", "postgres")
        with pytest.raises(Refused, match="did not start"):
            await server.start(found, data_dir, socket_dir=pg.socket_dir)
    assert not pg.socket_dir.exists()
    assert not is_alive(pg.pid)


CHILD = """
import asyncio, sys
from pathlib import Path
from airlock import binaries, server
async def main():
    async with server.running(binaries.find(), Path(sys.argv[1])) as pg:
        print(pg.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_server_does_not_outlive_its_starter(cluster: Path, how: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(cluster),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout
    try:
        pid = int(await process.stdout.readline())
        process.send_signal(how)
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await until(lambda: not is_alive(pid))


async def test_a_cancelled_caller_ends_its_server(cluster: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with server.running(binaries.find(), cluster) as pg:
            started.set_result(pg.pid)
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    pid = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


@pytest.fixture(scope="module")
async def cluster(servers_dir: Path) -> Path:
    data_dir = servers_dir / "own"
    await server.initdb(binaries.find(), data_dir, checksums=False)
    return data_dir


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run its servers")
async def test_root_without_namespaces_lets_another_user_run_it_in_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_namespaces_work", lambda: False)
    server._servant.cache_clear()
    tmp_path.chmod(0o700)
    try:
        found = binaries.find()
        await server.initdb(found, tmp_path / "data", checksums=False)
        async with server.running(found, tmp_path / "data") as pg, connect(pg.url()) as conn:
            assert await conn.fetchval("SELECT 1") == 1
            assert Path(f"/proc/{pg.pid}").stat().st_uid != 0
    finally:
        server._servant.cache_clear()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
