"""Play the fault matrix: ``make faults``, or a part of it, ``make faults ARGS="--only kill"``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlock import binaries
from tests.faults import document, files, guards, zygote
from tests.faults.document import Bitten, Played
from tests.faults.injector import SWITCH
from tests.faults.zygote import CHECKOUT

LANES = 2
PAGE = CHECKOUT / "docs" / "faults.md"


class Lane:
    """A lane from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    async def ask(self, **request: Any) -> dict[str, Any]:
        self._in.write(f"{json.dumps(request)}\n".encode())
        await self._in.drain()
        answer = await self._out.readline()
        if not answer:
            raise RuntimeError("A lane has ended; what it wrote is above.")
        return json.loads(answer)


@asynccontextmanager
async def _lane(number: int, root: Path, environment: dict[str, str]) -> AsyncGenerator[Lane]:
    folder = root / f"l{number}"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.lane"),
        *(str(folder), str(root / "service"), str(root / "zygote")),
        cwd=CHECKOUT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        # Ctrl-C is for us, who end it in order.
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield Lane(process)
    except BaseException:
        # In the middle of a case, perhaps.
        with suppress(ProcessLookupError):
            process.terminate()
        raise
    finally:
        process.stdin.close()
        await process.wait()


async def play(arguments: argparse.Namespace, root: Path) -> int:
    zygote.end_on_term()
    home = root / "prefect"
    home.mkdir()
    os.environ["PREFECT_HOME"] = str(home)
    from flows.runtime import prefect_runtime
    from tests.faults import services
    from tests.stage import RELEASES, make_repository

    make_repository(root / "service", RELEASES | services.RELEASES)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(prefect_runtime(home, port=0, worker=False))
        environment = runtime.environment | {SWITCH: "1", "TMPDIR": str(root)}
        await stack.enter_async_context(zygote.running(root / "zygote", environment))
        lanes = [
            await stack.enter_async_context(_lane(number, root, environment))
            for number in range(LANES)
        ]
        scenarios = ("forwards", "rollback")
        found = await asyncio.gather(
            *(lane.ask(record=name) for lane, name in zip(lanes, scenarios, strict=True))
        )
        recorded = dict(zip(scenarios, found, strict=True))
        answers = await asyncio.gather(*(lane.ask(recorded=recorded) for lane in lanes))
        listed = [Listed(*each) for each in answers[0]["cases"]]
        todo = _chosen(listed, arguments)
        if arguments.list:
            print("\n".join(each.name for each in todo))
            return 0
        results = await _all(lanes, todo, arguments.seed)
    bad = sum(each.is_lost for each in results)
    print(f"{len(results)} cases, {bad} of them not as they must be")
    if not files.may_mount():
        print("Full and read-only disks were left out: this user may mount none")
    elif not bad and not arguments.only:
        played = [each.played for each in results if not each.todo.without]
        seen = [each.bitten for each in results if each.todo.without]
        PAGE.write_text(document.page(played, seen, version=binaries.find().version), "utf-8")
    return 1 if bad or not results else 0


@dataclass(frozen=True, slots=True)
class Listed:
    """A case as a lane names it."""

    name: str
    fault: str
    where: str
    is_played: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """A case to play, perhaps without a guard; it is to be lost then."""

    case: Listed
    without: str = ""

    @property
    def name(self) -> str:
        return f"without {self.without} / {self.case.name}" if self.without else self.case.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How it went."""

    todo: Todo
    end: str
    violations: list[str]

    @property
    def is_lost(self) -> bool:
        """Whether it went otherwise than it must. A fault that never came says nothing."""
        if self.todo.without:
            return not self.violations or self.violations[0].startswith("no fault")
        return bool(self.violations)

    @property
    def outcome(self) -> str:
        said = "; ".join(self.violations)
        if self.todo.without:
            return f"NOBODY MISSES IT: {said or self.end}" if self.is_lost else f"missed: {said}"
        return f"{self.end}; NOT SURVIVED: {said}" if said else self.end

    @property
    def played(self) -> Played:
        return Played(self.todo.case.fault, self.todo.case.where, self.end)

    @property
    def bitten(self) -> Bitten:
        return Bitten(self.todo.without, self.todo.case.name, self.violations[0])


def _chosen(listed: list[Listed], arguments: argparse.Namespace) -> list[Todo]:
    """What a rule chooses, or all that there is, and each guard's case without it."""
    by_name = {each.name: each for each in listed}
    todo = [Todo(case=each) for each in listed if each.is_played or arguments.all or arguments.only]
    todo += [Todo(case=by_name[guard.case], without=name) for name, guard in guards.GUARDS.items()]
    wanted = arguments.only
    found = [each for each in todo if wanted in each.name or re.search(wanted, each.name)]
    # Mixed, and alike in each run: what is left takes about as long as what was done.
    random.Random(0).shuffle(found)  # noqa: S311
    return found


async def _all(lanes: list[Lane], todo: list[Todo], seed: int) -> list[Done]:
    began, results = time.monotonic(), list[Done]()
    left = iter(list(enumerate(todo)))

    async def work(lane: Lane) -> None:
        for number, each in left:
            answer = await lane.ask(case=each.case.name, seed=seed + number, without=each.without)
            done = Done(todo=each, end=answer["end"], violations=answer["violations"])
            results.append(done)
            count = len(results)
            left_s = (time.monotonic() - began) / count * (len(todo) - count)
            print(
                f"{count}/{len(todo)}, {left_s / 60:.0f} min left, {answer['seconds']:.1f} s: "
                f"{each.name} (seed {seed + number}): {done.outcome}",
                flush=True,
            )

    await asyncio.gather(*(work(lane) for lane in lanes))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", default="", help="cases with this text or pattern in their names")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first")  # noqa: S311
    parser.add_argument("--all", action="store_true", help="whatever is listed, for hours")
    parser.add_argument("--list", action="store_true", help="their names, without playing them")
    parser.add_argument("--keep", action="store_true", help="leave the folder of the run")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="af-"))
    print(f"Seed {arguments.seed}, in {root}", flush=True)
    try:
        return asyncio.run(play(arguments, root))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Ended before its end")
        return 130
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
