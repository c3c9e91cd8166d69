"""A Prefect server and worker of this checkout's own, started, made ready, and ended again.

``make serve`` keeps them until Ctrl-C; the demo and the tests use :func:`prefect_runtime` for a
while. The Prefect settings of the person who runs it are neither read nor written, but for
PREFECT_SERVER_API_AUTH_STRING: where it is set, the server answers nobody without it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from airlock.errors import Broken, Refused, Transient
from flows import automations
from flows.runtime import command, deployments, prepared
from flows.runtime.api import (
    client,
    close_runs,
    create_work_pool,
    has_worker,
    limit_queue,
    open_work_pool,
    runs_of_the_worker,
    unfinished_runs,
)
from flows.runtime.command import WORK_POOL, auth_string, environment, worker_command
from flows.runtime.process import (
    let_children_hear_interrupts,
    private,
    process,
    refuse_if_ended,
    tail,
)

__all__ = [
    "API_URL_FILE",
    "WORK_POOL",
    "Runtime",
    "client",
    "environment",
    "prefect_runtime",
    "publish",
    "published_api_url",
    "tail",
    "worker_command",
]

UI_PORT = 4200
API_URL_FILE = "api-url"

READY_S = 180
WORKER_END_S = 30
SERVER_END_S = 15
SENDING_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A Prefect server that answers, and a worker beside it if one was asked for."""

    api_url: str
    state_dir: Path
    server_pid: int
    worker_pid: int | None

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to speak to this server, and to no other."""
        return environment(self.state_dir, api_url=self.api_url)

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Within this block, flows and Prefect clients of this process speak to this server."""
        from prefect import settings
        from prefect.logging.handlers import APILogHandler

        ours: dict[Any, Any] = {
            settings.PREFECT_API_URL: self.api_url,
            settings.PREFECT_HOME: self.state_dir,
            settings.PREFECT_LOCAL_STORAGE_PATH: self.state_dir / "storage",
            settings.PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
        theirs = {settings.PREFECT_API_KEY, settings.PREFECT_API_AUTH_STRING}
        if secret := auth_string():
            ours[settings.PREFECT_API_AUTH_STRING] = secret
            theirs.remove(settings.PREFECT_API_AUTH_STRING)
        # Prefect reads the names of extra loggers when it is imported, which is too early for us.
        core, handler = logging.getLogger(command.CORE_LOGGER), APILogHandler()
        with settings.temporary_settings(ours, restore_defaults=theirs):
            core.addHandler(handler)
            try:
                yield
            finally:
                core.removeHandler(handler)


@asynccontextmanager
async def prefect_runtime(
    state_dir: Path,
    *,
    host: str = command.LOOPBACK,
    port: int | None = None,
    worker: bool = True,
) -> AsyncIterator[Runtime]:
    """A running Prefect server; ended on leaving, with all it started.

    state_dir: its SQLite file, logs and the file ``api-url``; kept afterwards.
    host: an IP address of this machine; on another one than loopback an auth string must be set.
    port: None takes 4200 if it is free and any other if not; 0 takes any.
    worker: also create the work pool, apply prefect.yaml and start a process worker.
    Raises Refused when a server already uses state_dir, Transient when ours does not get ready.
    """
    command.check_host(host)
    command.check_ui_url()
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    let_children_hear_interrupts()
    database = command.database(state_dir)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(_lock(state_dir))
        port = _free_port(host, port)
        api_url = command.api_url(host, port)
        fresh = not database.exists() and not prepared.copy_to(database)
        # SQLite gives the files beside it the same mode.
        database.touch()
        database.chmod(0o600)
        server = await stack.enter_async_context(
            process(
                command.server_command(host, port),
                log=state_dir / "server.log",
                env=environment(state_dir, api_url=api_url),
                end_s=SERVER_END_S,
                # Held by the server as well, so that a server whose starter was killed still
                # refuses a second one on the same SQLite file.
                pass_fds=(lock,),
            )
        )
        await _wait_until_ready(server, api_url, state_dir)
        if fresh:
            prepared.keep(database)
        # Before anybody is told the address: whatever runs now ran on an earlier server.
        async with client(api_url) as http:
            await close_runs(http, await unfinished_runs(http), "Its Prefect server ended.")
        stack.enter_context(_api_url_file(state_dir, api_url))
        worker_pid = None
        if worker:
            worker_pid = await stack.enter_async_context(_worker(state_dir, api_url))
        try:
            yield Runtime(
                api_url=api_url, state_dir=state_dir, server_pid=server.pid, worker_pid=worker_pid
            )
        finally:
            await _send_what_is_left()


async def _send_what_is_left() -> None:
    """Log lines and events of this process's own runs, while their server is still there.

    Prefect sends them from threads, which would otherwise end with open sockets.
    """
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        await cast("Awaitable[object]", service.drain_all(timeout=SENDING_S, at_exit=False))


# ---------------------------------------------------------------- server


async def _wait_until_ready(
    server: asyncio.subprocess.Process, api_url: str, state_dir: Path
) -> None:
    deadline = time.monotonic() + READY_S
    async with client(api_url) as http:
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if (await http.get("/health", timeout=2)).is_success:
                    return
            refuse_if_ended(server, "server", state_dir / "server.log")
            await asyncio.sleep(0.1)
    raise Transient(
        f"The Prefect server did not answer at {api_url} within {READY_S} s. "
        f"Read {state_dir / 'server.log'}, then start again."
    )


def _free_port(host: str, wanted: int | None) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (UI_PORT, 0) if wanted is None else (wanted,):
        with socket.socket(family) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    raise Refused(
        f"Port {'' if wanted is None else f'{wanted} '}of {host} cannot be had: it is taken, or "
        "the address is not of this machine. Name another port, or 0 for any."
    )


@contextmanager
def _lock(state_dir: Path) -> Iterator[int]:
    """One server at a time on one SQLite file."""
    with private(state_dir / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"A Prefect server already runs on {state_dir}"
                f"{_where_it_answers(state_dir)}. End it first, or use that one."
            ) from error
        yield file.fileno()


def _where_it_answers(state_dir: Path) -> str:
    with suppress(OSError):
        return f" and answers at {(state_dir / API_URL_FILE).read_text(encoding='utf-8').strip()}"
    return ""


def published_api_url(state_dir: Path) -> str | None:
    """Where the server of this folder said that it answers; None when none is up."""
    try:
        return (state_dir / API_URL_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


@contextmanager
def _api_url_file(state_dir: Path, api_url: str) -> Iterator[None]:
    """The address, for the command line to find the server by."""
    path = state_dir / API_URL_FILE
    with private(path) as file:
        file.write(f"{api_url}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- worker and deployments


@asynccontextmanager
async def _worker(state_dir: Path, api_url: str) -> AsyncIterator[int]:
    """Work pool, worker, deployments, automations. The worker boots while these are applied."""
    env = environment(state_dir, api_url=api_url)
    async with client(api_url) as http:
        await open_work_pool(http)
    try:
        async with process(
            worker_command(), log=state_dir / "worker.log", env=env, end_s=WORKER_END_S
        ) as child:
            async with client(api_url) as http:
                await _publish(http, state_dir, env)
                await _wait_until_polling(http, child, state_dir)
            yield child.pid
    finally:
        # The server may be what failed.
        with suppress(httpx.HTTPError):
            async with client(api_url) as http:
                await close_runs(http, await runs_of_the_worker(http), "Its worker ended.")


async def publish(state_dir: Path, api_url: str, *, automations_alone: bool = False) -> None:
    """Work pool, deployments and automations on a server that others have started."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        async with client(api_url) as http:
            if automations_alone:
                await automations.apply(http)
                return
            await create_work_pool(http)
            await _publish(http, state_dir, environment(state_dir, api_url=api_url))
    except httpx.HTTPError as error:
        raise Transient(
            f"The Prefect server at {api_url} did not answer as expected: {type(error).__name__}. "
            f"Look whether it runs and whether {command.AUTH_VARIABLE} is the one that it asks for."
        ) from error


async def _publish(http: httpx.AsyncClient, state_dir: Path, env: dict[str, str]) -> None:
    try:
        queues = await deployments.apply(http, state_dir, env)
        for queue in queues:
            await limit_queue(http, queue)
        await deployments.draw_plainly(http)
        await automations.apply(http)
    except httpx.HTTPStatusError as error:
        raise Broken(
            "The Prefect server did not show or take deployments, queues, forms or automations: "
            f"{error.response.text[:500]}"
        ) from error


async def _wait_until_polling(
    http: httpx.AsyncClient, child: asyncio.subprocess.Process, state_dir: Path
) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if await has_worker(http):
            return
        refuse_if_ended(child, "worker", state_dir / "worker.log")
        await asyncio.sleep(0.2)
    raise Transient(
        f"The Prefect worker did not report to {http.base_url} within {READY_S} s. "
        f"Read {state_dir / 'worker.log'}, then start again."
    )
