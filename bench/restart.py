"""A restart under 24 clients, beside kill, sleep 3, start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from airlock import service, settings
from airlock.server import Server, free_port
from airlock.service import Release
from airlock.service.starting import base_environ
from bench import clients, stage
from bench.http_clients import CLIENTS
from bench.rounds import CHECKOUT, Contestant, Row, Setting, interleaved, median, spread
from examples.ma_tracker import load_data
from tests.people import connect

NAME = "restart"
MUST_REQUESTS = 10_000
# The runbook's: pkill, sleep 3, start.
RUNBOOK_PAUSE_S = 3
BEFORE_S = AFTER_S = 1.0
MODES = {"new": "a connection for each request", "keep": "connections that are kept"}

TOML = """
[targets.bench.service]
directory = "service"
port = {port}
env = ["DATABASE_URL"]
"""


@dataclass(slots=True, kw_only=True)
class Contest:
    """The tracker's service, and what its clients saw of each restart, by contestant."""

    root: Path
    port: int
    at_least: int
    seen: dict[str, list[clients.Seen]] = field(default_factory=dict)
    restarts: list[service.Restart] = field(default_factory=list)

    def contestants(self) -> dict[str, Contestant]:
        def ours(mode: str) -> Contestant:
            return lambda: self._ours(mode)

        def by_hand(mode: str) -> Contestant:
            return lambda: self._by_hand(mode)

        made = {"ours": ours, "by hand": by_hand}
        return {f"{who}, {mode}": make(mode) for mode in MODES for who, make in made.items()}

    async def _ours(self, mode: str) -> float:
        target = settings.target("bench")
        release = Release(ref=None, commit=None, directory=self.root / "service")
        first = await service.restart(target, release, old=None, token="before")  # noqa: S106
        serving = first.new
        try:
            async with self._clients(f"ours, {mode}", mode):
                began = time.monotonic()
                done = await service.restart(target, release, old=serving, token="after")  # noqa: S106
                seconds = time.monotonic() - began
            self.restarts.append(done)
            serving = done.new
        finally:
            await service.stop(target, serving)
        return seconds

    async def _by_hand(self, mode: str) -> float:
        old = await self.start()
        try:
            async with self._clients(f"by hand, {mode}", mode):
                began = time.monotonic()
                await _end(old)
                await asyncio.sleep(RUNBOOK_PAUSE_S)
                old = await self.start()
                seconds = time.monotonic() - began
        finally:
            await _end(old)
        return seconds

    @asynccontextmanager
    async def _clients(self, name: str, mode: str) -> AsyncGenerator[None]:
        arguments = (str(self.port), mode, str(self.at_least))
        async with clients.running("bench.http_clients", *arguments) as seen:
            await asyncio.sleep(BEFORE_S)
            yield
            await asyncio.sleep(AFTER_S)
        self.seen.setdefault(name, []).append(seen)

    async def start(self) -> asyncio.subprocess.Process:
        """``python3 start_server.py`` by hand; returns when it answers."""
        process = await asyncio.create_subprocess_exec(
            "python3",
            "start_server.py",
            cwd=self.root / "service",
            env={
                **base_environ(),
                "DATABASE_URL": os.environ["DATABASE_URL"],
                "PORT": str(self.port),
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return process
            await asyncio.sleep(0.01)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


async def run(setting: Setting) -> list[Row]:
    root = setting.folder / NAME
    rounds = setting.times(3)
    async with stage.production(setting.folder) as server:
        await _prepare(server, setting)
        port = free_port()
        stage.project(root, TOML.format(port=port))
        source = CHECKOUT / "examples" / "ma_tracker" / "python-service"
        shutil.copytree(source, root / "service", ignore=shutil.ignore_patterns("__pycache__"))
        env = stage.environment(root, server, NAME)
        with mock.patch.dict(os.environ, {**env, "DATABASE_URL": server.url(NAME, stage.OWNER)}):
            at_least = 500 if setting.quick else -(-MUST_REQUESTS // rounds)
            contest = Contest(root=root, port=port, at_least=at_least)
            await _end(await contest.start())  # the first one compiles
            await interleaved(contest.contestants(), rounds=rounds, say=setting.say)
    shutil.rmtree(root)
    return [row for mode in MODES for row in _rows(contest, mode)]


async def _prepare(server: Server, setting: Setting) -> None:
    setting.say("loading")
    await stage.create_database(server, NAME)
    async with connect(server.url(NAME, stage.OWNER)) as conn:
        await stage.run_files(conn, stage.tracker_files())
        await load_data.load(conn, 500)


def _rows(contest: Contest, mode: str) -> list[Row]:
    ours, by_hand = contest.seen[f"ours, {mode}"], contest.seen[f"by hand, {mode}"]
    failed, requests = sum(each.failed for each in ours), sum(each.requests for each in ours)
    waits = [each.longest() for each in ours]
    said = "; ".join(text for each in ours if (text := each.said()))
    what = f"restart under {CLIENTS} clients, {MODES[mode]}"
    peer = "kill, sleep 3, start"
    return [
        Row(
            what=f"{what}: failed requests",
            ours=failed,
            peer=sum(each.failed for each in by_hand),
            peer_name=peer,
            unit="failed",
            must=f"0 of at least {MUST_REQUESTS:,}",
            holds=failed == 0 and requests >= MUST_REQUESTS,
            note=f"{len(ours)} restarts; of {requests:,} requests, the peer's of "
            f"{sum(each.requests for each in by_hand):,}; {said}".removesuffix("; "),
        ),
        Row(
            what=f"{what}: longest wait for a good answer",
            ours=max(waits),
            peer=max(each.longest() for each in by_hand),
            peer_name=peer,
            note=f"{spread(waits)}; median restart {median(_seconds(contest)):.2f} s to readiness",
        ),
    ]


def _seconds(contest: Contest) -> list[float]:
    return [each.ready_s for each in contest.restarts]
