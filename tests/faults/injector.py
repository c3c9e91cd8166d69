"""Stops a deploy at one point of its way: patched over the product from outside, under test only.

The product has no hooks. Armed, each journaled step, write of the ledger, statement of production,
start of an instance and alert becomes two named points, before and after it. At the one that the
fault names, the process is killed, is sent a signal, or waits for the test.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airlock import deploy, ledger, release, snapshot
from airlock.alert import webhook
from airlock.apply import Runner
from airlock.refresh import databases
from airlock.service import process, starting
from airlock.snapshot import physical

# Set by the tests for the processes that they start, and by nobody else.
SWITCH = "AIRLOCK_TEST_FAULTS"
# How long a process waits at a point for the test to go on, or to be ended.
PATIENCE_S = 60.0

# As on a disk that is full, where no disk can be mounted: no file grows beyond it.
FILE_BYTES = 64 * 2**10

# So many transactions of a backfill are points.
BATCHES = 3

Kind = Literal["record", "kill", "kill with worker", "term", "wait", "small files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at one point, which is named as the recording of a fault-free run names it.

    folder: where the process writes which points it passed (``points``), which run of Prefect it
        linked to the deploy (``run``), and that the fault has happened (``struck``), and where it
        looks for ``go`` while it waits.
    """

    kind: Kind
    folder: str
    point: str = ""
    worker_pid: int = 0


class Injector:
    """The points that this process has passed, and the one where the fault is."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.folder = Path(fault.folder)
        self.passed = Counter[str]()
        self.step = ""

    async def at(self, name: str) -> None:
        """Pass a point. What comes by again is another one."""
        self.passed[name] += 1
        number = self.passed[name]
        point = name if number == 1 else f"{name} #{number}"
        with (self.folder / "points").open("a", encoding="utf-8") as file:
            file.write(f"{point}\n")
        if point == self.fault.point:
            await self._strike()

    async def _strike(self) -> None:
        (self.folder / "struck").touch()
        match self.fault.kind:
            case "record":
                pass
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill with worker":
                os.kill(self.fault.worker_pid, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
                # Whoever handles it gets a moment to do so at this very point.
                await asyncio.sleep(0.5)
            case "small files":
                # Python ignores the signal that goes with it, and so do the programs it starts.
                resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))
            case "wait":
                async with asyncio.timeout(PATIENCE_S):
                    # Another process says so.
                    while not (self.folder / "go").exists():  # noqa: ASYNC110
                        await asyncio.sleep(0.01)


def arm(fault: Fault) -> Injector:
    """Patch this process. Ends it where it is no test's."""
    refuse_unless_under_test()
    made = Injector(fault)
    (made.folder / "pid").write_text(str(os.getpid()))
    _patch_ledger(made)
    _patch_apply(made)
    _patch_surroundings(made)
    return made


def refuse_unless_under_test() -> None:
    if os.environ.get(SWITCH) != "1":
        sys.exit(f"The fault injector acts under test only, and {SWITCH} is not set.")


# ---------------------------------------------------------------- the points


def _patch_ledger(inject: Injector) -> None:
    journal, advance, note, begin = ledger.journal, ledger.advance, ledger.note, ledger.begin

    @asynccontextmanager
    async def journaled(
        target: Any, lease: Any, step: str, detail: str = ""
    ) -> AsyncGenerator[Any]:
        await inject.at(f"{step}: before the intent")
        async with journal(target, lease, step, detail) as conn:
            inject.step = step
            try:
                await inject.at(f"{step}: after the intent")
                yield conn
                await inject.at(f"{step}: after the record")
            finally:
                inject.step = ""
        await inject.at(f"{step}: closed")

    def advancing(conn: Any, lease: Any, state: Any, **columns: Any) -> Any:
        return _around(
            inject, advance(conn, lease, state, **columns), f"{_where(inject)}: %s {state}"
        )

    def noting(conn: Any, lease: Any, **columns: Any) -> Any:
        named = "+".join(columns)
        return _around(
            inject, note(conn, lease, **columns), f"{_where(inject)}: %s the note of {named}"
        )

    def beginning(*given: Any, **named: Any) -> Any:
        return _around(inject, begin(*given, **named), "open_deploy: %s the deploy's row")

    ledger.journal = journaled
    ledger.advance = advancing
    ledger.note = noting
    ledger.begin = beginning


def _where(inject: Injector) -> str:
    # Outside of the journaled steps: the function that writes. A new one names itself.
    return inject.step or sys._getframe(2).f_code.co_name


async def _around(inject: Injector, work: Any, name: str) -> Any:
    try:
        await inject.at(name % "before")
    except BaseException:
        work.close()
        raise
    done = await work
    await inject.at(name % "after")
    return done


def _patch_apply(inject: Injector) -> None:
    execute, alone, execute_alone = Runner._execute, Runner._alone, Runner._execute_alone
    commit = Runner._commit

    # The clone's statements are measured one by one; what happens there is no fault of production.
    def around(work: Any, source: str, said: str) -> Any:
        if inject.step == "rehearse":
            return work
        return _around(inject, work, f"{inject.step}: {source}, {said}")

    def executing(self: Runner, script: Any, *given: Any, **how: Any) -> Any:
        work = execute(self, script, *given, **how)
        return around(work, script.source, "%s its COMMIT") if how.get("close") else work

    def announcing(self: Runner, script: Any, *given: Any, **how: Any) -> Any:
        work = alone(self, script, *given, **how)
        return around(work, script.source, "%s the announced statement")

    def executing_alone(self: Runner, script: Any, *given: Any, **how: Any) -> Any:
        work = execute_alone(self, script, *given, **how)
        return around(work, script.source, "%s its effect")

    def committing(self: Runner, script: Any, *given: Any) -> Any:
        work = commit(self, script, *given)
        # Its intent and the first batches; how many there are is up to the clients.
        said = f"{script.source}, before a batch's COMMIT"
        is_early = inject.passed[f"{inject.step}: {said}"] < BATCHES
        return around(work, script.source, "%s a batch's COMMIT") if is_early else work

    Runner._execute = executing
    Runner._commit = committing
    Runner._alone = announcing
    Runner._execute_alone = executing_alone


def _patch_surroundings(inject: Injector) -> None:
    _wrap(inject, starting, "start", "%s the start of an instance")
    _wrap(inject, process, "stop", "%s the end of an instance")
    _wrap(inject, release, "check_out", "%s the checkout")
    _wrap(inject, snapshot, "_write", "%s the snapshot's files")
    _wrap(inject, snapshot, "retain", "%s old snapshots go")
    _wrap(inject, physical, "take", "%s the base backup")
    _wrap(inject, databases, "swap", "%s the swap")
    _patch_swap(inject)
    _patch_link(inject)
    restore = snapshot.restore

    @asynccontextmanager
    async def restoring(*given: Any, **how: Any) -> AsyncGenerator[Any]:
        async with restore(*given, **how) as clone:
            await inject.at("rehearse: the clone stands")
            yield clone

    snapshot.restore = restoring
    tethered = starting.tethered

    @asynccontextmanager
    async def holding(*given: Any, **how: Any) -> AsyncGenerator[int]:
        async with tethered(*given, **how) as pid:
            await inject.at("rehearse: a release runs on the clone")
            yield pid

    starting.tethered = holding
    send = webhook.send

    # Which step sends it is chance, so it is not in the name.
    def sending(target: Any, key: str, alert: Any) -> Any:
        return _around(inject, send(target, key, alert), f"alert {alert.state}: %s it is sent")

    webhook.send = sending


def _patch_swap(inject: Injector) -> None:
    require = databases._require

    # In the transaction once more, when the names were changed.
    async def requiring(conn: Any, expected: Any) -> None:
        await require(conn, expected)
        if conn.is_in_transaction():
            await inject.at("in the swap")

    databases._require = requiring


def _patch_link(inject: Injector) -> None:
    link = deploy.link_run

    async def linking(lease: Any, flow_run: str, url: str | None) -> None:
        await link(lease, flow_run, url)
        (inject.folder / "run").write_text(flow_run)

    deploy.link_run = linking
    _wrap(inject, deploy, "link_run", "%s the link to the run")


def _wrap(inject: Injector, module: Any, name: str, said: str) -> None:
    original: Callable[..., Any] = getattr(module, name)

    def wrapped(*given: Any, **how: Any) -> Any:
        step = f"{inject.step}: " if inject.step else ""
        return _around(inject, original(*given, **how), step + said)

    setattr(module, name, wrapped)
