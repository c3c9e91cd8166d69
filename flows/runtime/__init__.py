"""A Prefect server and worker of this checkout's own, started, made ready, and ended again.

``make serve`` keeps them until Ctrl-C; the demo and the tests use :func:`prefect_runtime` for a
while. The Prefect settings of the person who runs it are neither read nor written, but for
PREFECT_SERVER_API_AUTH_STRING. The server answers nobody who does not know its auth string, see
:mod:`flows.runtime.auth`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx

from airlock.errors import Broken, Refused, Transient
from flows import automations
from flows.runtime import address, auth, command, deployments, prepared, ticket
from flows.runtime.address import API_URL_FILE, published_api_url
from flows.runtime.api import (
    auth_string_for,
    client,
    close_runs,
    create_work_pool,
    has_worker,
    limit_queue,
    open_work_pool,
    runs_of_the_worker,
    unfinished_runs,
)
from flows.runtime.command import UI_PORT, WORK_POOL, environment, worker_command
from flows.runtime.process import (
    let_children_hear_interrupts,
    process,
    refuse_if_ended,
    tail,
)

__all__ = [
    "API_URL_FILE",
    "WORK_POOL",
    "Runtime",
    "auth_string_for",
    "client",
    "environment",
    "how_to_open",
    "prefect_runtime",
    "publish",
    "published_api_url",
    "running",
    "tail",
    "worker_command",
]

READY_S = 180
WORKER_END_S = 30
SERVER_END_S = 15
SENDING_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A Prefect server that answers, and a worker beside it if one was asked for."""

    api_url: str
    auth_string: str = field(repr=False)
    state_dir: Path
    server_pid: int = 0
    worker_pid: int | None = None

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    def ui_link(self) -> str:
        """Opens the UI once, without the auth string being typed."""
        return ticket.link(self.ui_url, self.auth_string)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to speak to this server, and to no other."""
        return environment(self.state_dir, auth_string=self.auth_string, api_url=self.api_url)

    def client(self) -> httpx.AsyncClient:
        """Plain HTTP to this server."""
        return client(self.api_url, self.auth_string)

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Within this block, flows and Prefect clients of this process speak to this server."""
        from prefect import settings
        from prefect.logging.handlers import APILogHandler

        ours: dict[Any, Any] = {
            settings.PREFECT_API_URL: self.api_url,
            settings.PREFECT_API_AUTH_STRING: self.auth_string,
            settings.PREFECT_HOME: self.state_dir,
            settings.PREFECT_LOCAL_STORAGE_PATH: self.state_dir / "storage",
            settings.PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
        # Prefect reads the names of extra loggers when it is imported, which is too early for us.
        core, handler = logging.getLogger(command.CORE_LOGGER), APILogHandler()
        with settings.temporary_settings(ours, restore_defaults={settings.PREFECT_API_KEY}):
            core.addHandler(handler)
            try:
                yield
            finally:
                core.removeHandler(handler)


def how_to_open(runtime: Runtime) -> str:
    """The UI's address for a person; a link that opens it goes to a terminal only."""
    if sys.stdout.isatty():
        return f"{runtime.ui_link()} (opens once; later: airlock ui)"
    return f"{runtime.ui_url}, which asks for the auth string; without typing it: airlock ui"


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
    host: an IP address of this machine.
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
        lock = stack.enter_context(address.locked(state_dir))
        secret = auth.auth_string(state_dir)
        listener = stack.enter_context(_listener(host, port))
        api_url = command.api_url(host, listener.getsockname()[1])
        fresh = not database.exists() and not prepared.copy_to(database)
        # SQLite gives the files beside it the same mode.
        database.touch()
        database.chmod(0o600)
        server = await stack.enter_async_context(
            process(
                command.server_command(listener.fileno()),
                log=state_dir / "server.log",
                env=environment(state_dir, auth_string=secret, api_url=api_url),
                end_s=SERVER_END_S,
                # Held by the server as well, so that a server whose starter was killed still
                # refuses a second one on the same SQLite file.
                pass_fds=(lock, listener.fileno()),
            )
        )
        # From now on nobody listens where the server has ended.
        listener.close()
        await _wait_until_ready(server, api_url, state_dir)
        if fresh:
            prepared.keep(database)
        runtime = Runtime(
            api_url=api_url, auth_string=secret, state_dir=state_dir, server_pid=server.pid
        )
        # Before anybody is told the address: whatever runs now ran on an earlier server.
        async with runtime.client() as http:
            await close_runs(http, await unfinished_runs(http), "Its Prefect server ended.")
        stack.enter_context(address.published(state_dir, api_url))
        if worker:
            worker_pid = await stack.enter_async_context(_worker(runtime))
            runtime = replace(runtime, worker_pid=worker_pid)
        try:
            yield runtime
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


def _listener(host: str, wanted: int | None) -> socket.socket:
    """Listens from now on, so that no process of another user can in our server's place."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (UI_PORT, 0) if wanted is None else (wanted,):
        with suppress(OSError):
            return socket.create_server((host, port), family=family)
    raise Refused(
        f"Port {'' if wanted is None else f'{wanted} '}of {host} cannot be had: it is taken, or "
        "the address is not of this machine. Name another port, or 0 for any."
    )


async def running(state_dir: Path) -> Runtime | None:
    """The server of this folder; None when none is up.

    Raises Refused where it asks for another auth string than the one that is known here.
    """
    api_url = published_api_url(state_dir)
    if api_url is None:
        return None
    found = Runtime(api_url=api_url, auth_string=auth.auth_string(state_dir), state_dir=state_dir)
    try:
        async with found.client() as http:
            answer = await http.get("/admin/version", timeout=2)
    except httpx.HTTPError:
        return None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Refused(
            f"The Prefect server at {api_url} was started with another auth string. Set "
            f"{auth.VARIABLE} to that one; or, after `airlock ui --rotate`, start the server again."
        )
    return found if answer.is_success else None


# ---------------------------------------------------------------- worker and deployments


@asynccontextmanager
async def _worker(runtime: Runtime) -> AsyncIterator[int]:
    """Work pool, worker, deployments, automations. The worker boots while these are applied."""
    env, state_dir = runtime.environment, runtime.state_dir
    async with runtime.client() as http:
        await open_work_pool(http)
    try:
        async with process(
            worker_command(), log=state_dir / "worker.log", env=env, end_s=WORKER_END_S
        ) as child:
            async with runtime.client() as http:
                await _publish(http, state_dir, env)
                await _wait_until_polling(http, child, state_dir)
            yield child.pid
    finally:
        # The server may be what failed.
        with suppress(httpx.HTTPError):
            async with runtime.client() as http:
                await close_runs(http, await runs_of_the_worker(http), "Its worker ended.")


async def publish(
    state_dir: Path, api_url: str, *, auth_string: str, automations_alone: bool = False
) -> None:
    """Work pool, deployments and automations on a server that others have started."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        async with client(api_url, auth_string) as http:
            if automations_alone:
                await automations.apply(http)
                return
            await create_work_pool(http)
            env = environment(state_dir, auth_string=auth_string, api_url=api_url)
            await _publish(http, state_dir, env)
    except httpx.HTTPError as error:
        raise Transient(
            f"The Prefect server at {api_url} did not answer as expected: {type(error).__name__}. "
            f"Look whether it runs and whether {auth.VARIABLE} is the one that it asks for."
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
