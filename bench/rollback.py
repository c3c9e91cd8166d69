"""From an unhealthy verdict to the old schema and the old release, beside the runbook by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import httpx

from airlock import deploy as steps
from airlock import release, service, settings
from airlock.errors import Broken
from airlock.request import DeployRequest
from airlock.server import Server, free_port
from airlock.service.starting import base_environ
from bench import stage
from bench.rounds import CHECKOUT, Row, Setting, interleaved, median, program, spread
from examples.ma_tracker import load_data
from tests.people import connect

NAME = "rollback"
MUST_S = 2
# The runbook's: pkill, sleep 3, start.
RUNBOOK_PAUSE_S = 3
POLL_S = 0.01
FORWARD = "ALTER TABLE deals ADD COLUMN score integer;"
REVERSE = "ALTER TABLE deals DROP COLUMN score;"
# The bad release comes up and is ready, and an endpoint that it should have is gone.
GOOD_ROUTE, BAD_ROUTE = '@router.get("/deals")', '@router.get("/withdrawn")'

# The bad release has to come as far as production.
TOML = """
[targets.bench.clone]
try_releases = false
[targets.bench.service]
repository = "service"
directory = "service"
port = {port}
env = ["DATABASE_URL"]
[targets.bench.health]
url = "http://127.0.0.1:{port}/health"
consecutive = 3
interval_ms = 50
bake_s = 0.3
smoke = [{{ path = "/deals?limit=1" }}]
"""


@dataclass(slots=True, kw_only=True)
class Contest:
    """Production with its service, v1 serving between the runs."""

    server: Server
    root: Path
    port: int
    schema_s: list[float] = field(default_factory=list)
    serving_s: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url(NAME, stage.OWNER)

    async def ours(self) -> float:
        """A deploy whose release turns unhealthy; seconds from the verdict until all is back."""
        lease = await steps.open_deploy(DeployRequest(target="bench", release="bad"))
        assert lease is not None
        await steps.prepare_release(lease)
        await steps.take_snapshot(lease)
        await steps.rehearse(lease)
        await steps.ask(lease)
        await steps.apply_plan(lease)
        await steps.verify_schema(lease)
        await steps.restart_service(lease)
        try:
            await steps.check_health(lease)
        except Broken as error:
            failure = str(error)
        else:
            raise RuntimeError("The bad release passed its health check.")
        async with _watching(self.url, self.port) as seen:
            await steps.roll_back(lease, failure)
        self.schema_s.append(seen.schema_s)
        self.serving_s.append(seen.serving_s)
        return max(seen.schema_s, seen.serving_s)

    async def boot(self) -> float:
        """How long the service takes to answer, started by hand with nothing beside it."""
        began = time.monotonic()
        async with self._by_hand("service", free_port()):
            return time.monotonic() - began

    async def by_hand(self) -> float:
        """The runbook's commands, each typed as soon as the one before it is done."""
        psql = [str(self.server.binaries.tool("psql")), "--quiet", f"--dbname={self.url}"]
        await program([*psql, "--command", FORWARD])
        port = free_port()
        async with self._by_hand("bad", port) as bad:
            began = time.monotonic()
            await program([*psql, "--command", REVERSE])
            bad.terminate()
            await asyncio.sleep(RUNBOOK_PAUSE_S)
            async with self._by_hand("service", port):
                return time.monotonic() - began

    @asynccontextmanager
    async def _by_hand(self, folder: str, port: int) -> AsyncGenerator[asyncio.subprocess.Process]:
        """``python3 start_server.py``, answering when the block begins, ended after it."""
        process = await asyncio.create_subprocess_exec(
            "python3",
            "start_server.py",
            cwd=self.root / folder,
            # As Airlock starts it, or Python's caches would differ.
            env={**base_environ(), "DATABASE_URL": self.url, "PORT": str(port)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            while await _release_at(port) is None:  # noqa: ASYNC110 – another process sets it
                await asyncio.sleep(POLL_S)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


@dataclass(slots=True, kw_only=True)
class Seen:
    """Seconds from the beginning until the old schema, and the old release alone, were seen."""

    schema_s: float = 0
    serving_s: float = 0


@asynccontextmanager
async def _watching(url: str, port: int) -> AsyncGenerator[Seen]:
    """Asks database and service all the time, as clients would, until the block ends."""
    seen, began = Seen(), time.monotonic()
    tasks = [
        asyncio.create_task(_watch_schema(url, seen, began)),
        asyncio.create_task(_watch_service(port, seen, began)),
    ]
    try:
        yield seen
        await asyncio.sleep(3 * POLL_S)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
    if not (seen.schema_s and seen.serving_s):
        raise RuntimeError("The rollback ended, and the old schema or release was not seen.")


async def _watch_schema(url: str, seen: Seen, began: float) -> None:
    async with connect(url) as conn:
        while await conn.fetchval(  # noqa: ASYNC110 – another connection sets it
            "SELECT count(*) FROM pg_catalog.pg_attribute"
            " WHERE attrelid = 'deals'::regclass AND attname = 'score'"
        ):
            await asyncio.sleep(POLL_S)
    seen.schema_s = time.monotonic() - began


async def _watch_service(port: int, seen: Seen, began: float) -> None:
    while True:
        answer = await _release_at(port)
        if answer != "v1":
            seen.serving_s = 0  # the bad one again, or nobody: it did not count yet
        elif not seen.serving_s:
            seen.serving_s = time.monotonic() - began
        await asyncio.sleep(POLL_S)


async def _release_at(port: int) -> str | None:
    """Which release answers on a new connection; None when none does, or not well."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/health")
    except httpx.HTTPError:
        return None
    return str(answer.json().get("release")) if answer.status_code == 200 else None


async def run(setting: Setting) -> list[Row]:
    root = setting.folder / "rollback"
    port = free_port()
    async with stage.production(setting.folder) as server:
        await stage.create_database(server, NAME)
        await load(server, 300 if setting.quick else 40_000, setting)
        await project(root, port)
        env = stage.environment(root, server, NAME)
        with mock.patch.dict(os.environ, {**env, "DATABASE_URL": server.url(NAME, stage.OWNER)}):
            contest = Contest(server=server, root=root, port=port)
            await contest.boot()  # the first one compiles
            async with serving():
                got = await interleaved(
                    {"ours": contest.ours, "boot": contest.boot, "by hand": contest.by_hand},
                    rounds=setting.times(5),
                    say=setting.say,
                )
    shutil.rmtree(root)
    return _rows(contest, **{name.replace(" ", "_"): seconds for name, seconds in got.items()})


def _rows(
    contest: Contest, ours: list[float], boot: list[float], by_hand: list[float]
) -> list[Row]:
    # Boots differ from minute to minute: each round has its own.
    ours_s = [each - own for each, own in zip(ours, boot, strict=True)]
    by_hand_s = [each - own for each, own in zip(by_hand, boot, strict=True)]
    least = median(ours_s)
    return [
        Row(
            what="unhealthy verdict to old schema and old release, less one boot",
            ours=least,
            peer=median(by_hand_s),
            peer_name="the runbook by hand, typed without a pause",
            must=f"< {MUST_S} s",
            holds=least < MUST_S,
            note=f"boot {median(boot):.2f} s; {spread(ours_s)}; with it: release after "
            f"{median(contest.serving_s):.2f} s, schema after {median(contest.schema_s):.2f} s",
        )
    ]


@asynccontextmanager
async def serving() -> AsyncGenerator[None]:
    """v1 serves when the block begins; whatever serves at its end is ended."""
    target = settings.target("bench")
    first = await release.check_out(target, "v1")
    await service.restart(target, first, old=None, token="before")  # noqa: S106 – not a secret
    try:
        yield
    finally:
        running = await service.find(target)
        if running is not None:
            await service.stop(target, running)


async def load(server: Server, deals: int, setting: Setting) -> None:
    setting.say(f"loading {deals:,} deals")
    async with connect(server.url(NAME, stage.OWNER)) as conn:
        await stage.run_files(conn, stage.tracker_files())
        await load_data.load(conn, deals)


async def project(root: Path, port: int) -> None:
    """One pending migration, and the reference service's repository with tags v1 and bad."""
    stage.project(root, TOML.format(port=port))
    (root / "migrations" / "001_score.sql").write_text(
        "-- Migration 001: score\n-- Purpose: a column\n-- Author: bench\n-- Date: 2026-01-01\n\n"
        f"{FORWARD}\n\n-- ROLLBACK NOTES\n-- {REVERSE}\n",
        encoding="utf-8",
    )
    ignored = shutil.ignore_patterns("__pycache__")
    source = CHECKOUT / "examples" / "ma_tracker" / "python-service"
    for folder in ("service", "bad"):
        shutil.copytree(source, root / folder, ignore=ignored)
    routes = (source / "routes.py").read_text(encoding="utf-8")
    assert GOOD_ROUTE in routes, "the service's routes.py changed; mend GOOD_ROUTE"
    bad = routes.replace(GOOD_ROUTE, BAD_ROUTE)
    (root / "bad" / "routes.py").write_text(bad, encoding="utf-8")
    repository = root / "service"
    await _git(repository, "init", "--quiet", "--initial-branch=main")
    for tag, text in (("bad", bad), ("v1", routes)):
        (repository / "routes.py").write_text(text, encoding="utf-8")
        await _git(repository, "add", "--all")
        await _git(repository, "commit", "--quiet", "--message", tag)
        await _git(repository, "tag", tag)


async def _git(folder: Path, *arguments: str) -> None:
    env: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    await program(["git", *identity, *arguments], env=env, cwd=folder)
