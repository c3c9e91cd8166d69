"""A backup proved by restoring it, beside pg_dump and pg_restore with two jobs each."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import psutil

from airlock.server import Server
from bench import stage
from bench.one_snapshot import ONE_DEAL
from bench.rounds import (
    Contestant,
    Row,
    Setting,
    interleaved,
    json_program,
    median,
    program,
    spread,
)
from examples.ma_tracker import load_data
from tests.people import connect

NAME = "tracker"
DEALS = 950_000
RATIO_MUST = 6
MEMORY_MUST_BYTES = 200 * 10**6


@dataclass(slots=True, kw_only=True)
class Contest:
    """Production with its data, a server to restore dumps on, and what was seen."""

    setting: Setting
    production: Server
    dev: Server
    scratch: Server
    env: Mapping[str, str]
    seen: list[dict[str, float]] = field(default_factory=list)
    children_bytes: list[int] = field(default_factory=list)

    async def physical(self) -> float:
        async with _watched(self.children_bytes):
            found = await json_program([sys.executable, "-m", "bench.one_snapshot"], self.env)
        self.seen.append(found)
        shutil.rmtree(self.setting.folder / "snapshot" / ".airlock")
        return found["seconds"]

    def plain(self, on: Server, *options: str) -> Contestant:
        """pg_dump with these options, a new database, pg_restore, and the same query."""

        async def run() -> float:
            goal = self.setting.folder / "dump"
            shutil.rmtree(goal, ignore_errors=True)
            tools = self.production.binaries
            dump = [str(tools.tool("pg_dump")), "-Fd", "-j2", *options, f"--file={goal}"]
            restore = [str(tools.tool("pg_restore")), "-j2", f"--dbname={on.url(NAME)}"]
            began = time.monotonic()
            await program([*dump, f"--dbname={self.production.url(NAME)}"])
            await stage.create_database(on, NAME)
            await program([*restore, str(goal)])
            async with connect(on.url(NAME, stage.OWNER)) as conn:
                assert await conn.fetchval(ONE_DEAL)
            seconds = time.monotonic() - began
            await stage.drop_database(on, NAME)
            shutil.rmtree(goal)
            return seconds

        return run


async def run(setting: Setting) -> list[Row]:
    deals = 3_000 if setting.quick else DEALS
    async with stage.production(setting.folder) as production:
        await stage.create_database(production, NAME)
        await _load(production, deals, setting)
        stage.project(
            setting.folder / "snapshot", '[targets.bench.snapshot]\nprovider = "physical"\n'
        )
        async with (
            stage.production(setting.folder, "dev") as dev,
            stage.scratch(production.binaries, setting.folder) as scratch,
        ):
            contest = Contest(
                setting=setting,
                production=production,
                dev=dev,
                scratch=scratch,
                env=stage.environment(setting.folder / "snapshot", production, NAME),
            )
            rows = await _measured(contest)
        shutil.rmtree(setting.folder / "snapshot")
    return rows


async def _measured(contest: Contest) -> list[Row]:
    setting = contest.setting
    contestants = {
        "physical snapshot and clone": contest.physical,
        "pg_dump and pg_restore": contest.plain(contest.dev),
        "pg_dump -Z1 and pg_restore": contest.plain(contest.dev, "-Z1"),
        "pg_dump -Z1 and pg_restore without fsync": contest.plain(contest.scratch, "-Z1"),
    }
    got = await interleaved(contestants, rounds=setting.times(3), say=setting.say)
    ours, plain, z1, z1_scratch = got.values()
    size = contest.seen[-1]["bytes"] / 10**9
    taken = median([each["taken_s"] for each in contest.seen])
    peak = max(each["peak_bytes"] for each in contest.seen)
    what = f"backup restored until a query answers, {size:.2f} GB"
    note = f"backup {taken:.2f} s of it; ours {spread(ours)}"
    return [
        _faster(what, ours, plain, "pg_dump -Fd -j2 (its own -Z6), pg_restore -j2", note),
        replace(
            _faster(what, ours, z1, "pg_dump -Fd -j2 -Z1, pg_restore -j2", note),
            must="",
            holds=None,
        ),
        replace(
            _faster(what, ours, z1_scratch, "the same, restored without fsync", note),
            must="",
            holds=None,
        ),
        Row(
            what="peak memory of our process in that",
            ours=peak / 10**6,
            unit="MB",
            must="< 200 MB",
            holds=peak < MEMORY_MUST_BYTES,
            note=f"largest program it started: {max(contest.children_bytes) / 10**6:.0f} MB, "
            "shared buffers of the clone included",
        ),
    ]


def _faster(what: str, ours: list[float], peer: list[float], name: str, note: str) -> Row:
    return Row(
        what=what,
        ours=median(ours),
        peer=median(peer),
        peer_name=name,
        must=f"ratio ≥ {RATIO_MUST}",
        holds=median(peer) / median(ours) >= RATIO_MUST,
        note=f"{note}, peer {spread(peer)}",
    )


async def _load(production: Server, deals: int, setting: Setting) -> None:
    setting.say(f"loading {deals:,} deals")
    async with connect(production.url(NAME, stage.OWNER)) as conn:
        await stage.run_files(conn, stage.tracker_files())
        await load_data.load(conn, deals)
    async with connect(production.url(NAME)) as superuser:
        await superuser.execute("VACUUM")
        await superuser.execute("CHECKPOINT")


@asynccontextmanager
async def _watched(peaks: list[int]) -> AsyncGenerator[None]:
    """Adds the resident memory of the largest program started below us while the block runs.

    Ours is the first level below, its programs are all the deeper ones.
    """
    largest = [0]
    own = psutil.Process()
    servers = {child.pid for child in own.children()}
    task = asyncio.create_task(_watch(own, servers, largest))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        peaks.append(largest[0])


async def _watch(own: psutil.Process, servers: set[int], largest: list[int]) -> None:
    while True:
        for ours in own.children():
            if ours.pid in servers:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in ours.children(recursive=True):
                    largest[0] = max(largest[0], _resident(each))
        await asyncio.sleep(0.05)


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
