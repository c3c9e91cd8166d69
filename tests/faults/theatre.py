"""One case from its curtain to the oracle: a stage of its own, clients that write, a deploy."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from airlock import outbox, server, settings
from airlock.postgres import quote_ident
from airlock.service import table
from tests import own
from tests.faults import clock, guards, oracle
from tests.faults.injector import SWITCH, Fault, Kind
from tests.faults.oracle import Expected, Seen, State, Verdict
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.worker import Worker
from tests.faults.zygote import Child, Zygote
from tests.people import connect
from tests.stage import ADD_COLUMN, DROP_INDEX, Stage, receiving, standing

# One deploy with everything that happens to it, and the recovery from that.
DEADLINE_S = 150.0
# A second recovery may find what the first left; more than three is no convergence.
RECOVERIES = 3
RELEASES = {"forwards": "v2", "rollback": "clings"}
DURING = {"forwards": "forwards,", "rollback": "during rollback,"}
ENDS = frozenset({"succeeded", "rolled_back", "failed", "not begun"})
# What the processes of a case must know, as the stage set it.
_HANDED_ON = (
    settings.CONFIG_VARIABLE,
    *("PROD_DATABASE_URL", "PROD_REPLICATION_URL", "PROD_SLACK_URL"),
    *("DATABASE_URL", "TAKEN_PORT", "PATH"),
)
Play = Callable[["Theatre"], Coroutine[Any, Any, None]]


@dataclass(slots=True, kw_only=True)
class House:
    """What all cases of one lane stand on."""

    pg: server.Server
    settings: Mapping[str, str]
    owner_password: str
    base: str
    repository: Path
    zygote: Zygote
    worker: Worker
    api: Callable[[], httpx.AsyncClient]
    folder: Path

    async def fall(self) -> None:
        """The PostgreSQL server is gone at once, as after kill -9 on all of it."""
        await self.pg.stop("immediate")

    async def rise(self) -> None:
        """It is there again, at the same address."""
        if not self.pg.is_running:
            again = await server.start(
                self.pg.binaries,
                self.pg.data_dir,
                socket_dir=self.pg.socket_dir,
                port=self.pg.port,
                settings=self.settings,
            )
            # Whoever started the first one ends this one.
            self.pg._process = again._process


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the matrix: what happens, where, and the play that makes it happen.

    ends: how the deploy may end.
    is_played: by each run of ``make faults``; the others on request.
    """

    name: str
    fault: str
    where: str
    play: Play
    ends: frozenset[str] = ENDS
    is_played: bool = True


@dataclass(slots=True, kw_only=True)
class Result:
    """How a case went."""

    name: str
    end: str
    violations: list[str]
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Theatre:
    """The stage of one case, and what a play may do on it."""

    house: House
    stage: Stage
    folder: Path
    seed: int
    # The guard that the processes of this case do without.
    without: str = ""
    # How wrong their clock is.
    ahead_s: int = 0
    faults: list[Fault] = field(default_factory=list)
    # What the processes of this case are told besides.
    also: dict[str, str] = field(default_factory=dict)
    # Undone when the case was judged.
    afterwards: ExitStack = field(default_factory=ExitStack)

    async def start(self, flow: str, fault: Fault | None = None, **parameters: Any) -> Child:
        """Begin a flow as the command line does, in a process of its own."""
        return await self.house.zygote.run(
            flow,
            {"target": "prod", **parameters},
            environment=self.environment,
            directory=self.folder,
            log=self.folder / "flow.log",
            fault=fault,
        )

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: os.environ[name] for name in _HANDED_ON}
        bent = {guards.VARIABLE: self.without, clock.VARIABLE: str(self.ahead_s or "")}
        return {**ours, SWITCH: "1", "TMPDIR": str(self.folder / "tmp"), **bent, **self.also}

    @asynccontextmanager
    async def through_a_proxy(self) -> AsyncGenerator[Proxy]:
        """Airlock's way to the database leads through it; that of the service does not."""
        pg, password = self.house.pg, self.house.owner_password
        async with proxy_to(pg.tcp_url(_database(self.stage), "owner", password)) as proxy:
            self.also["PROD_DATABASE_URL"] = proxy.url
            try:
                yield proxy
            finally:
                del self.also["PROD_DATABASE_URL"]

    def fault(self, kind: Kind, point: str = "") -> Fault:
        folder = self.folder / f"fault-{len(self.faults)}"
        folder.mkdir()
        self.faults.append(Fault(kind=kind, folder=str(folder), point=point))
        return self.faults[-1]

    async def deploy(self, release: str = "v2", fault: Fault | None = None) -> int:
        """Deploy, and wait for its end. A fault that did not happen is a failure of the case."""
        child = await self.start("deploy", fault, release=release, requester="the faults")
        status = await child.wait()
        if fault and fault.point:
            await self.reached(fault, child)
        return status

    async def reached(self, fault: Fault, child: Child) -> None:
        """The fault has happened, or the process waits where it shall."""
        sign = Path(fault.folder) / "struck"
        await self.until(lambda: sign.exists() or table.read(child.pid) is None)
        if not sign.exists():
            raise NotStruck(f"no fault: the deploy never came to {fault.point!r}")

    def mount(self, place: Path, options: str) -> None:
        """A disk of its own, in memory, until the case was judged."""
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = ["-t", "tmpfs", "-o", f"{options},mode=0700", "none", str(place)]
        subprocess.run(["mount", *disk], check=True)
        self.afterwards.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)

    def go(self, fault: Fault) -> None:
        """The process that waits goes on."""
        (Path(fault.folder) / "go").touch()

    async def deploy_by_worker(self, fault: Fault, release: str = "v2") -> str:
        """Deploy as the form does, until the fault has happened; the run's id."""
        parameters = {"target": "prod", "release": release, "requester": "the faults"}
        run = await self.house.worker.run(parameters, environment=self.environment, fault=fault)
        await self.until((Path(fault.folder) / "struck").exists)
        return run

    async def ended(self, fault: Fault) -> None:
        """The process that the fault happened in is gone."""
        pid = int((Path(fault.folder) / "pid").read_text())
        await self.until(lambda: table.read(pid) is None)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Other processes make it so. The deadline is the case's."""
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def recover(self, **parameters: Any) -> bool:
        """Whether nothing is open after one recovery."""
        child = await self.start("recover", **parameters)
        return await child.wait() == 0


def _database(stage: Stage) -> str:
    return urlsplit(stage.superuser_url).path[1:]


class NotStruck(Exception):
    """The case says nothing, since its fault never happened."""


async def perform(
    house: House, case: Case, *, number: int, seed: int, expected: Expected, without: str = ""
) -> Result:
    """Play one case, let it recover, and judge what is left. Ends all that it started.

    without: a guard that its processes do not have.
    """
    clock = asyncio.get_running_loop()
    began = clock.time()
    verdict = Verdict()
    folder = house.folder / f"c{number}"
    try:
        async with asyncio.timeout(DEADLINE_S), _open(house, folder, seed) as theatre:
            theatre.without = without
            verdict = await _played(theatre, case.play, expected)
    except (NotStruck, AssertionError) as error:
        verdict.violations.append(str(error))
    except TimeoutError:
        verdict.violations.append(f"it hangs: no end within {DEADLINE_S:.0f} s")
    finally:
        await house.rise()
        own.end_all(folder)
    if verdict.end and verdict.end not in case.ends:
        verdict.violations.append(f"it ended as {verdict.end}, expected {sorted(case.ends)}")
    if verdict.violations:
        verdict.violations.append(f"its files: {folder}")
    else:
        # A snapshot in each, and hundreds of cases.
        shutil.rmtree(folder, ignore_errors=True)
    return Result(
        name=case.name,
        end=verdict.end,
        violations=verdict.violations,
        seconds=clock.time() - began,
    )


@asynccontextmanager
async def _open(house: House, folder: Path, seed: int) -> AsyncGenerator[Theatre]:
    (folder / "tmp").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        async with (
            receiving() as webhook,
            standing(
                folder / "project",
                pg=house.pg,
                base=house.base,
                repository=house.repository,
                webhook=webhook,
                patch=patch,
            ) as stage,
        ):
            async with connect(house.pg.url()) as superuser:
                # What was committed survives the server's crash, as in production.
                database = quote_ident(_database(stage))
                await superuser.execute(f"ALTER DATABASE {database} SET synchronous_commit = on")
            # The one channel that says which alert it is.
            stage.change("slack_url_env", "webhook_url_env")
            stage.migration(11, "score", *ADD_COLUMN)
            stage.migration(
                12,
                "offers",
                "CREATE INDEX CONCURRENTLY idx_deals_offer ON deals (offer_price);",
                "DROP INDEX CONCURRENTLY idx_deals_offer;",
            )
            # It counts how often a row is met.
            stage.migration(
                13,
                "fill",
                "-- Airlock: backfill table=deals key=id batch=10\n"
                "UPDATE deals SET score = coalesce(score, 0) + 1;",
                "UPDATE deals SET score = score - 1;",
            )
            stage.migration(14, "unread", *DROP_INDEX)
            theatre = Theatre(house=house, stage=stage, folder=folder, seed=seed)
            with theatre.afterwards:
                yield theatre


async def _played(theatre: Theatre, play: Play, expected: Expected) -> Verdict:
    from traffic import Traffic

    before = await oracle.look(theatre.stage)
    traffic = Traffic(theatre.stage.base_url, clients=2, requests_per_s=10, seed=theatre.seed)
    await traffic.start()
    try:
        await play(theatre)
        await _converge(theatre)
    finally:
        seen = await traffic.stop()
    await outbox.deliver("prod", force=True)
    runs = [Path(fault.folder) / "run" for fault in theatre.faults]
    return await oracle.judge(
        theatre.stage,
        before=before,
        seen=Seen(
            seed=theatre.seed,
            writes=seen.writes,
            api=theatre.house.api,
            runs=tuple(run.read_text() for run in runs if run.exists()),
        ),
        expected=expected,
    )


async def _converge(theatre: Theatre) -> None:
    for _ in range(RECOVERIES):
        if await theatre.recover():
            return


# ---------------------------------------------------------------- without a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A run without a fault: the points it passed, and what it left."""

    points: tuple[str, ...]
    state: State
    files: frozenset[str]


async def record(house: House, scenario: str, *, number: int) -> Recording:
    """Play one scenario without a fault. Raises RuntimeError when that alone is not clean."""
    points: list[str] = []
    kept: list[Any] = []

    async def play(theatre: Theatre) -> None:
        fault = theatre.fault("record")
        await theatre.deploy(RELEASES[scenario], fault)
        points.extend((Path(fault.folder) / "points").read_text(encoding="utf-8").splitlines())
        kept.extend((await oracle.look(theatre.stage), oracle.files(theatre.stage)))

    ends = frozenset({"succeeded" if scenario == "forwards" else "rolled_back"})
    case = Case(name=scenario, fault="none", where="", play=play, ends=ends)
    done = await perform(house, case, number=number, seed=number, expected=Expected())
    if done.violations:
        raise RuntimeError(f"{scenario} without a fault: {done.violations}")
    return Recording(points=tuple(points), state=kept[0], files=frozenset(kept[1]))
