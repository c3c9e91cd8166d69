"""A Prefect server and worker of this checkout's own, started, made ready, and ended again.

``make serve`` keeps them until Ctrl-C; the demo and the tests use :func:`prefect_runtime` for a
while. The Prefect settings of the person who runs it are neither read nor written.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from io import BufferedWriter
from pathlib import Path
from typing import Any, Literal, cast

import httpx

from airlock.errors import Broken, Refused, Transient
from airlock.server import dying_with_parent

ROOT = Path(__file__).resolve().parent.parent
PREFECT_FILE = ROOT / "prefect.yaml"
HOST = "127.0.0.1"
UI_PORT = 4200
WORK_POOL = "airlock"
WORKER = "airlock"
CORE_LOGGER = "airlock"
API_URL_FILE = "api-url"

READY_S = 180
DEPLOY_S = 120
WORKER_END_S = 30
SERVER_END_S = 15
SENDING_S = 10
POLL_S = 2
BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1, 2, 4)


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
        # Prefect reads the names of extra loggers when it is imported, which is too early for us.
        core, handler = logging.getLogger(CORE_LOGGER), APILogHandler()
        with settings.temporary_settings(ours, restore_defaults=theirs):
            core.addHandler(handler)
            try:
                yield
            finally:
                core.removeHandler(handler)


def environment(state_dir: Path, *, api_url: str | None = None) -> dict[str, str]:
    """This process's environment with its Prefect settings replaced by ours.

    Whatever PREFECT_ variables a person has set point at another server or another account.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # The worker starts flow runs with "python"; a bare one may be the system's.
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    own |= {
        "PREFECT_HOME": str(state_dir),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{_database(state_dir)}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_EXTRA_LOGGERS": CORE_LOGGER,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_WORKER_QUERY_SECONDS": str(POLL_S),
        "PYTHONUNBUFFERED": "1",
    }
    if api_url:
        own["PREFECT_API_URL"] = api_url
    return own


def server_command(port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "prefect", "server", "start"),
        *("--host", HOST, "--port", str(port), "--analytics-off"),
    ]


# Prefect keeps a folder for its runs in /tmp/runner_storage, which belongs to whichever user of the
# machine had a worker first, and is closed to all others. TMPDIR would move it too, but the flows
# and the service that they start would inherit that.
_WITH_OWN_RUNNER_STORAGE = (
    "import os, runpy, tempfile; tempfile.tempdir = os.environ['PREFECT_HOME']; "
    "runpy.run_module('prefect', run_name='__main__', alter_sys=True)"
)


def worker_command() -> list[str]:
    return [
        *(sys.executable, "-c", _WITH_OWN_RUNNER_STORAGE, "worker", "start"),
        *("--pool", WORK_POOL, "--type", "process", "--name", WORKER),
    ]


def deploy_command() -> list[str]:
    return [
        *(sys.executable, "-m", "prefect", "--no-prompt", "deploy"),
        *("--all", "--prefect-file", str(PREFECT_FILE)),
    ]


@asynccontextmanager
async def prefect_runtime(
    state_dir: Path, *, port: int | None = None, worker: bool = True
) -> AsyncIterator[Runtime]:
    """A running Prefect server on the loopback address; ended on leaving, with all it started.

    state_dir: its SQLite file, logs and the file ``api-url``; kept afterwards.
    port: None takes 4200 if it is free and any other if not; 0 takes any.
    worker: also create the work pool, apply prefect.yaml and start a process worker.
    Raises Refused when a server already uses state_dir, Transient when ours does not get ready.
    """
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    _let_children_hear_interrupts()
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(_lock(state_dir))
        api_url = f"http://{HOST}:{_free_port(port)}/api"
        fresh = not _database(state_dir).exists() and not _copy_prepared_database(state_dir)
        server = await stack.enter_async_context(_server(state_dir, api_url, lock))
        await _wait_until_ready(server, api_url, state_dir)
        if fresh:
            _keep_prepared_database(state_dir)
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


@asynccontextmanager
async def _server(
    state_dir: Path, api_url: str, lock: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    port = int(api_url.removesuffix("/api").rpartition(":")[2])
    async with _process(
        server_command(port),
        log=state_dir / "server.log",
        env=environment(state_dir, api_url=api_url),
        end_s=SERVER_END_S,
        # Held by the server as well, so that a server whose starter was killed still refuses a
        # second one on the same SQLite file.
        pass_fds=(lock,),
    ) as process:
        yield process


@asynccontextmanager
async def _worker(state_dir: Path, api_url: str) -> AsyncIterator[int]:
    """Work pool, worker, deployments. The worker boots while the deployments are applied."""
    env = environment(state_dir, api_url=api_url)
    async with client(api_url) as http:
        await _close_runs_of_a_dead_worker(http)
        await _open_work_pool(http)
    try:
        async with _process(
            worker_command(), log=state_dir / "worker.log", env=env, end_s=WORKER_END_S
        ) as process:
            await _apply_deployments(state_dir, env)
            await _wait_until_polling(process, api_url, state_dir)
            yield process.pid
    finally:
        # The server may be what failed.
        with suppress(httpx.HTTPError):
            async with client(api_url) as http:
                await _close_runs_of_a_dead_worker(http)


@asynccontextmanager
async def _process(
    command: list[str],
    *,
    log: Path,
    env: dict[str, str],
    end_s: float,
    pass_fds: tuple[int, ...] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in its own process group, its output in a log file that only we may read."""
    with _private(log) as output:
        process = await asyncio.create_subprocess_exec(
            # A killed starter clears nothing up; Prefect ends by itself then.
            *dying_with_parent(command, signal.SIGTERM),
            cwd=ROOT,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=pass_fds,
            # A Ctrl-C in the terminal must reach only us: the worker has to end before its server.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await asyncio.shield(_end(process, end_s))


async def _end(process: asyncio.subprocess.Process, end_s: float) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), end_s)
        except TimeoutError:
            # Its leader has not ended, so the group's number is still ours.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


class _PatientTransport(httpx.AsyncHTTPTransport):
    """Asks again where the server says 503: its SQLite file was locked, and nothing was done."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for pause_s in BUSY_PAUSES_S:
            response = await super().handle_async_request(request)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response
            await response.aclose()
            await asyncio.sleep(pause_s)
        return await super().handle_async_request(request)


def client(api_url: str) -> httpx.AsyncClient:
    """Plain HTTP to a server of ours, for what needs no import of Prefect."""
    # A proxy of the environment does not know our loopback server.
    transport = _PatientTransport()
    return httpx.AsyncClient(base_url=api_url, timeout=30, trust_env=False, transport=transport)


async def _wait_until_ready(
    process: asyncio.subprocess.Process, api_url: str, state_dir: Path
) -> None:
    deadline = time.monotonic() + READY_S
    async with client(api_url) as http:
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if (await http.get("/health", timeout=2)).is_success:
                    return
            _refuse_if_ended(process, "server", state_dir)
            await asyncio.sleep(0.1)
    raise Transient(
        f"The Prefect server did not answer at {api_url} within {READY_S} s. "
        f"Read {state_dir / 'server.log'}, then start again."
    )


async def _open_work_pool(http: httpx.AsyncClient) -> None:
    """The pool the deployments name. Its job template is filled in by the worker."""
    answer = await http.post("/work_pools/", json={"name": WORK_POOL, "type": "process"})
    if answer.status_code == httpx.codes.CONFLICT:
        answer = await http.patch(f"/work_pools/{WORK_POOL}", json={"is_paused": False})
    answer.raise_for_status()
    # An earlier worker of that name counts as online for a while after its end.
    await http.delete(f"/work_pools/{WORK_POOL}/workers/{WORKER}")


async def runs_of_the_worker(http: httpx.AsyncClient) -> list[dict[str, str]]:
    """Flow runs that the worker has taken and that have not ended."""
    taken = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
    taken |= {"work_pools": {"name": {"any_": [WORK_POOL]}}}
    return (await http.post("/flow_runs/filter", json=taken)).raise_for_status().json()


async def _close_runs_of_a_dead_worker(http: httpx.AsyncClient) -> None:
    """A run that outlived its worker stays Running for ever and keeps the next one waiting."""
    message = "The worker ended during this run. `airlock status` says what was done."
    crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": message}}
    for run in await runs_of_the_worker(http):
        answer = await http.post(f"/flow_runs/{run['id']}/set_state", json=crashed)
        answer.raise_for_status()


async def _apply_deployments(state_dir: Path, env: dict[str, str]) -> None:
    log = state_dir / "deployments.log"
    async with _process(deploy_command(), log=log, env=env, end_s=5) as process:
        async with asyncio.timeout(DEPLOY_S):
            await process.wait()
        if process.returncode:
            raise Broken(
                f"prefect deploy ended with {process.returncode} on {PREFECT_FILE.name}. "
                f"Its last lines:\n{tail(log)}"
            )


async def _wait_until_polling(
    process: asyncio.subprocess.Process, api_url: str, state_dir: Path
) -> None:
    """A worker that has shown itself to the server takes the next run that is scheduled."""
    deadline = time.monotonic() + READY_S
    async with client(api_url) as http:
        while time.monotonic() < deadline:
            answer = await http.post(f"/work_pools/{WORK_POOL}/workers/filter", json={})
            if any(worker["status"] == "ONLINE" for worker in answer.raise_for_status().json()):
                return
            _refuse_if_ended(process, "worker", state_dir)
            await asyncio.sleep(0.2)
    raise Transient(
        f"The Prefect worker did not report to {api_url} within {READY_S} s. "
        f"Read {state_dir / 'worker.log'}, then start again."
    )


def _refuse_if_ended(process: asyncio.subprocess.Process, what: str, state_dir: Path) -> None:
    if process.returncode is not None:
        raise Transient(
            f"The Prefect {what} ended with {process.returncode} while it started. "
            f"Its last lines:\n{tail(state_dir / f'{what}.log')}"
        )


def _let_children_hear_interrupts() -> None:
    """A shell without job control starts background jobs deaf to SIGINT, and deafness is inherited.

    Prefect's worker turns SIGTERM into SIGINT, so a deaf one would never end.
    """
    with suppress(ValueError):  # not in the main thread: nothing can be changed from here
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _free_port(wanted: int | None) -> int:
    for port in (UI_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return probe.getsockname()[1]
    raise Refused(f"Port {wanted} of {HOST} is taken. Name another one, or 0 for any.")


@contextmanager
def _lock(state_dir: Path) -> Iterator[int]:
    """One server at a time on one SQLite file."""
    with _private(state_dir / "lock", "ab") as file:
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
    with _private(path) as file:
        file.write(f"{api_url}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _database(state_dir: Path) -> Path:
    return state_dir / "prefect.db"


def _prepared_database() -> Path:
    """An empty database of this Prefect version: its 100-odd migrations take 8 s of CPU."""
    return ROOT / ".airlock" / "cache" / f"prefect-{version('prefect')}.db"


def _copy_prepared_database(state_dir: Path) -> bool:
    """Whether there was one to copy."""
    try:
        shutil.copyfile(_prepared_database(), _database(state_dir))
    except FileNotFoundError:
        return False
    return True


def _keep_prepared_database(state_dir: Path) -> None:
    prepared = _prepared_database()
    prepared.parent.mkdir(parents=True, exist_ok=True)
    unfinished = prepared.with_suffix(f".{os.getpid()}")
    source, copy = sqlite3.connect(_database(state_dir)), sqlite3.connect(unfinished)
    with closing(source), closing(copy):
        source.backup(copy)
    unfinished.replace(prepared)


def _private(path: Path, mode: Literal["wb", "ab"] = "wb") -> BufferedWriter:
    """Open for writing; a new file may be read by its owner only."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
