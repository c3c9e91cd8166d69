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
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from airlock import binaries
from tests.faults import document, zygote
from tests.faults.document import Played
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
    )
    assert process.stdin is not None
    try:
        yield Lane(process)
    finally:
        process.stdin.close()
        await process.wait()


async def play(arguments: argparse.Namespace, root: Path) -> int:
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
        all_cases = {name: (fault, where) for name, fault, where in answers[0]["cases"]}
        names = [name for name in all_cases if re.search(arguments.only, name)]
        if arguments.list:
            print("\n".join(names))  # noqa: T201
            return 0
        results = await _all(lanes, names, arguments.seed)
        bad = sum(bool(each["violations"]) for each in results)
        print(f"{len(results)} faults, {bad} of them not survived")  # noqa: T201
        if not bad and len(results) == len(all_cases):
            played = [Played(*all_cases[each["name"]], each["end"]) for each in results]
            PAGE.write_text(document.page(played, version=binaries.find().version), "utf-8")
        return 1 if bad or not results else 0


async def _all(lanes: list[Lane], names: list[str], seed: int) -> list[dict[str, Any]]:
    began, results = time.monotonic(), []
    todo = iter(list(enumerate(names)))

    async def work(lane: Lane) -> None:
        for number, name in todo:
            result = await lane.ask(case=name, seed=seed + number)
            results.append(result)
            done = len(results)
            left_s = (time.monotonic() - began) / done * (len(names) - done)
            said = "; ".join(result["violations"])
            outcome = f"{result['end']}; NOT SURVIVED: {said}" if said else result["end"]
            print(  # noqa: T201
                f"{done}/{len(names)}, {left_s / 60:.0f} min left, {result['seconds']:.1f} s: "
                f"{name} (seed {seed + number}): {outcome}",
                flush=True,
            )

    await asyncio.gather(*(work(lane) for lane in lanes))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this pattern in it")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first")  # noqa: S311
    parser.add_argument("--list", action="store_true", help="their names, without playing them")
    parser.add_argument("--keep", action="store_true", help="leave the folder of the run")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="af-"))
    print(f"Seed {arguments.seed}, in {root}", flush=True)  # noqa: T201
    try:
        return asyncio.run(play(arguments, root))
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
