"""`make serve`: Prefect's UI, its worker and our deployments, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from rich.console import Console

from airlock import outbox, settings
from airlock.errors import AirlockError
from airlock.visible import visible
from flows.automations import DEPLOYMENT
from flows.runtime import Runtime, how_to_open, prefect_runtime
from flows.runtime.api import pause_work_pool, unfinished_runs
from flows.runtime.command import LOOPBACK
from flows.runtime.deployments import published_by_title
from flows.runtime.process import tail
from flows.schedules import look_twice

log = logging.getLogger(__name__)

T = TypeVar("T")

DELIVER_EVERY_S = 30


async def _say(console: Console, runtime: Runtime) -> None:
    async with runtime.client() as http:
        there = await published_by_title(http)
    console.print(
        f"Prefect UI      {how_to_open(runtime)}\n"
        f"Logs            {runtime.state_dir}\n"
        f"To deploy       Deployments, {_titles('deploy', there)}, Run, Custom run\n"
        f"To undo         Deployments, {_titles('rollback', there)}, Run, Custom run",
        *(f"By itself       {line}" for line in _schedules(there)),
        "Ctrl-C waits for what runs, then ends the server and the worker.",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _titles(flow: str, there: Mapping[str, Any]) -> str:
    found = [title for title in there if title.startswith(f"{flow}/")]
    return " or ".join(found) or f"none: prefect.yaml has no {flow} of a target of airlock.toml"


def _schedules(there: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for title, deployment in there.items():
        if title == DEPLOYMENT:
            yield f"{title}, when a run dies, and each minute while a deploy is open"
            continue
        for each in deployment["schedules"]:
            parts = (each["schedule"].get(key) for key in ("cron", "interval", "rrule", "timezone"))
            when = " ".join(str(part) for part in parts if part)
            active = each["active"] and not deployment["paused"]
            yield f"{title}, {when}: {'on' if active else 'off, switch it on in Deployments'}"


class _Once(logging.Filter):
    """Lets a line pass once: an outbox that cannot be read says so every time."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        news = line not in self.said
        self.said.add(line)
        return news


async def _end_of_one(runtime: Runtime) -> str:
    """The name of the one that ended though nobody asked it to."""
    pids = {"server": runtime.server_pid, "worker": runtime.worker_pid}
    while True:
        for name, pid in pids.items():
            # The event loop reaps its children, so an ended one has no process any more.
            if pid and not psutil.pid_exists(pid):
                return name
        await asyncio.sleep(1)


async def _deliver_for_ever() -> None:
    """Hand over what waits in the outboxes: a channel that was down gets its alert later."""
    while True:
        await outbox.deliver_all()
        await asyncio.sleep(DELIVER_EVERY_S)


async def _watch_schedules_for_ever(runtime: Runtime) -> None:
    """Tell people when schedules start nothing; this itself needs none of them."""
    while True:
        await asyncio.sleep(DELIVER_EVERY_S)
        try:
            found = await look_twice(runtime.api_url)
            await outbox.schedules_looked_at(list(found.problems.values()))
        except Exception as error:  # noqa: BLE001 – the loop goes on
            log.warning("Schedules were not looked at: %s", type(error).__name__)
            continue
        for problem in found.problems.values():
            log.warning("Schedules: %s", problem)


async def _drain(runtime: Runtime, console: Console) -> None:
    """Take no new runs and wait for the running ones.

    A worker kills its own when it ends, and a deploy of the command line needs the server.
    """
    said = ""
    async with runtime.client() as http:
        await _answer_of(pause_work_pool, http)
        while runs := await _answer_of(unfinished_runs, http):
            names = visible(", ".join(sorted(run["name"] for run in runs)))
            if names != said:
                console.print(
                    f"Waiting for {names} to end. Ctrl-C again does not wait: what the worker runs "
                    "is killed, and the command line goes on without its server.",
                    markup=False,
                    soft_wrap=True,
                )
            said = names
            await asyncio.sleep(1)


async def _answer_of(
    ask: Callable[[httpx.AsyncClient], Awaitable[T]], http: httpx.AsyncClient
) -> T:
    """Asked again as long as none comes: whether the server has ended, its process tells."""
    while True:
        with suppress(httpx.HTTPError):
            return await ask(http)
        await asyncio.sleep(1)


async def serve(state_dir: Path, *, host: str = LOOPBACK) -> int:
    """Server, worker and deployments until SIGINT or SIGTERM; 1 if one of them ends by itself."""
    console = Console()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run made it
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    answers: list[Callable[[], object]] = [task.cancel]

    def interrupted() -> None:
        if answers:
            answers.pop(0)()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    try:
        console.print("Starting the Prefect server and worker …")
        async with prefect_runtime(state_dir, host=host) as runtime:
            await _say(console, runtime)
            # The first signal lets a running deploy finish, the second one does not, and no further
            # one may interrupt the clearing up.
            answers[:] = [stop.set, task.cancel]
            return await _until_stopped(runtime, stop, console)
    except asyncio.CancelledError:
        return 0
    except AirlockError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except httpx.HTTPError as error:
        console.print(
            f"The Prefect server did not answer as expected ({type(error).__name__}). Read "
            f"{state_dir / 'server.log'}, then start again.",
            style="red",
            markup=False,
        )
        return 1


async def _until_stopped(runtime: Runtime, stop: asyncio.Event, console: Console) -> int:
    died = asyncio.create_task(_end_of_one(runtime))
    drained = asyncio.create_task(_drained(runtime, stop, console))
    delivering = asyncio.create_task(_deliver_for_ever())
    watching = asyncio.create_task(_watch_schedules_for_ever(runtime))
    # A pool that is paused for the end starts nothing, as it should.
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: watching.cancel())
    try:
        await asyncio.wait({died, drained}, return_when=asyncio.FIRST_COMPLETED)
        if drained.done():
            drained.result()
            return 0
        output = runtime.state_dir / f"{died.result()}.log"
        said = visible(tail(output))
        console.print(f"The {died.result()} ended by itself:\n{said}", markup=False)
        return 1
    finally:
        for each in (died, drained, delivering, watching, stopping):
            each.cancel()


async def _drained(runtime: Runtime, stop: asyncio.Event, console: Console) -> None:
    await stop.wait()
    await _drain(runtime, console)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="IP address of this machine to listen on; %(default)s by default",
    )
    host = parser.parse_args().host
    said = logging.StreamHandler()
    said.addFilter(_Once())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", handlers=[said])
    try:
        state_dir = settings.load().state_dir / "prefect"
    except AirlockError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 1
    return asyncio.run(serve(state_dir, host=host))


if __name__ == "__main__":
    sys.exit(main())
