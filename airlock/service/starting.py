"""Starting one instance, and waiting until it is provably this one that answers well."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airlock import permissions
from airlock.errors import Broken
from airlock.service import Instance, LogMark, Release, configured, ending, log, probe, table
from airlock.service.sockets import Sockets
from airlock.settings import ServiceSettings, Target, read_env_file

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

LAUNCH = Path(__file__).parent / "launch.py"
_POLL_S = 0.02
# Between two looks at its process and its sockets, which cost more than a question.
_WATCH_S = 0.1
_PUBLIC_POLL_S = 0.1
_LAUNCH_S = 10
_BASE = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a start went. failure is None when the instance is ready."""

    instance: Instance
    ready_s: float
    failure: str | None = None
    died: bool = False
    binds_itself: bool = False


def launch_command(
    command: tuple[str, ...],
    *,
    fds: tuple[int, ...],
    log_file: Path,
    directory: Path,
    tether: bool = False,
) -> list[str]:
    """The command that starts the service in a session of its own.

    tether: for as long as somebody holds the other end of its standard input.
    """
    return [
        *(sys.executable or "python3", "-I", "-S", str(LAUNCH)),
        *("--fds", ",".join(map(str, fds))),
        *("--log", str(log_file)),
        *("--directory", str(directory)),
        *(("--tether", "yes") if tether else ()),
        *("--", *command),
    ]


def base_environ() -> dict[str, str]:
    """The part of our environment that any program may see."""
    return {
        name: value for name, value in os.environ.items() if name in _BASE or name.startswith("LC_")
    }


def own_environ(target: Target) -> dict[str, str]:
    """The variables that the settings give the service. Holds secrets, as ``service_environ``."""
    service = configured(target)
    named = {name: target.variable(name) for name in service.env}
    return {**read_env_file(service.env_file), **named}


def service_environ(
    target: Target, release: Release, token: str, probe_url: str | None = None
) -> dict[str, str]:
    """What the service is started with. Holds secrets: hand it on, never log or store it."""
    service = configured(target)
    facts = {
        "HOST": service.host,
        "PORT": str(service.port),
        "RELEASE": release.name,
        "AIRLOCK_INSTANCE": token,
        "AIRLOCK_SERVICE": home(target),
    }
    if probe_url:
        facts["AIRLOCK_PROBE_URL"] = probe_url
    return {**base_environ(), **own_environ(target), **facts}


def home(target: Target) -> str:
    """What tells this target's instances from those of others on the machine."""
    return str(target.service_dir.resolve())


def watched(target: Target) -> tuple[LogMark, ...]:
    """The log file that the settings name, as long as it is now."""
    return (log.mark(target.health.log_file),) if target.health.log_file else ()


async def start(
    target: Target, release: Release, *, token: str, sockets: Sockets | None = None
) -> Instance:
    """Start one instance; it belongs to init at once. Does not wait until it is ready.

    Raises Broken when the command cannot be executed, Refused when a variable is missing.
    """
    service = configured(target)
    log_file = log.path(target, token)
    logs = (log.mark(log_file), *watched(target))
    fds = (sockets.public.fileno(), sockets.own.fileno()) if sockets else ()
    probe_url = sockets.probe_url if sockets else None
    pid = await _launch(
        launch_command(service.command, fds=fds, log_file=log_file, directory=release.directory),
        service_environ(target, release, token, probe_url),
        fds,
    )
    found = table.read(pid)
    logger.info("Instance started", extra={"pid": pid, "release": release.name, "token": token})
    return Instance(
        pid=pid,
        # Gone already: an identity that nothing has.
        create_time=found.create_time if found else -1.0,
        boot_id=table.boot_id(),
        token=token,
        release=release.name,
        started_at=datetime.now(UTC),
        directory=release.directory,
        probe_url=probe_url,
        logs=logs,
    )


async def _launch(command: list[str], environ: dict[str, str], fds: tuple[int, ...]) -> int:
    launcher = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        umask=permissions.callers_umask(),
        pass_fds=fds,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    talking = asyncio.ensure_future(launcher.communicate())
    try:
        async with asyncio.timeout(_LAUNCH_S):
            output, problem = await asyncio.shield(talking)
    except asyncio.CancelledError:
        # Half-way through, the instance could not be found in order to end it.
        await asyncio.wait({talking}, timeout=_LAUNCH_S)
        raise
    except TimeoutError:
        launcher.kill()
        await launcher.wait()
        raise _too_slow() from None
    if launcher.returncode:
        raise _not_started(problem)
    return int(output)


def _too_slow() -> Broken:
    return Broken(f"Starting the service took more than {_LAUNCH_S} s. Is the machine well?")


def _not_started(problem: bytes) -> Broken:
    reason = problem.decode(errors="replace").strip().splitlines()[-1:]
    return Broken(
        f"The service could not be started: {' '.join(reason) or 'no reason given'}. Check "
        "command and directory in airlock.toml."
    )


@asynccontextmanager
async def tethered(
    command: list[str], environ: dict[str, str], fds: tuple[int, ...]
) -> AsyncGenerator[int]:
    """The pid of a service that ends with the block, and with us should we be killed.

    command: of ``launch_command`` with ``tether``. Raises Broken when it cannot be executed.
    """
    launcher = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        umask=permissions.callers_umask(),
        pass_fds=fds,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdout  # noqa: S101 - for the type checker
    assert launcher.stderr  # noqa: S101 - for the type checker
    try:
        try:
            async with asyncio.timeout(_LAUNCH_S):
                said = await launcher.stdout.readline()
        except TimeoutError:
            raise _too_slow() from None
        if not said:
            raise _not_started(await launcher.stderr.read())
        yield int(said)
    finally:
        # Shielded: a cancelled deploy still ends what it has started.
        await asyncio.shield(asyncio.ensure_future(_let_go(launcher)))


async def _let_go(launcher: asyncio.subprocess.Process) -> None:
    assert launcher.stdin  # noqa: S101 - for the type checker
    launcher.stdin.close()
    try:
        async with asyncio.timeout(_LAUNCH_S):
            await launcher.wait()
    except TimeoutError:
        # The service itself dies with it; what has left that one does not.
        launcher.kill()
        await launcher.wait()
        logger.warning("A tethered service did not end in time", extra={"pid": launcher.pid})


async def until_ready(
    target: Target,
    instance: Instance,
    http: httpx.AsyncClient,
    *,
    alone: bool,
    inherited: int | None,
) -> Trial:
    """Watch a started instance until it answers, dies, or ready_s is over.

    alone: whether nothing else can answer on the port.
    inherited: the inode of the public socket it was given.
    """
    service, begun = configured(target), time.monotonic()
    said: dict[str, str] = {}
    asking = _questions(target, instance, http, alone=alone, said=said)
    try:
        while (waited_s := time.monotonic() - begun) < service.ready_s:
            ready, _ = await asyncio.wait(
                asking, timeout=_WATCH_S, return_when=asyncio.FIRST_COMPLETED
            )
            waited_s = time.monotonic() - begun
            # One that answers and ends in the same moment is not ready.
            if not instance.is_alive:
                failure = f"it ended {waited_s:.1f} s after its start"
                return Trial(instance=instance, ready_s=waited_s, failure=failure, died=True)
            if inherited is not None and _binds_itself(service, instance, inherited):
                failure = "it binds its own port beside the inherited socket"
                return Trial(
                    instance=instance, ready_s=waited_s, failure=failure, binds_itself=True
                )
            if ready:
                ready.pop().result()
                return Trial(instance=instance, ready_s=round(waited_s, 3))
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    answers = "; ".join(f"{place}: {answer}" for place, answer in said.items()) or "none"
    failure = f"it was not ready within {service.ready_s:g} s; last answers: {answers}"
    return Trial(instance=instance, ready_s=service.ready_s, failure=failure)


def _binds_itself(service: ServiceSettings, instance: Instance, inherited: int) -> bool:
    others = table.listening(service.host, service.port) - {inherited}
    pids = [process.pid for process in ending.family(instance)] if others else []
    return any(others & set(table.descriptors(pid)) for pid in pids)


_Question = Callable[[], Awaitable[tuple[bool, str]]]


def _questions(
    target: Target,
    instance: Instance,
    http: httpx.AsyncClient,
    *,
    alone: bool,
    said: dict[str, str],
) -> set[asyncio.Task[None]]:
    """Two tasks that end at a good answer: a service may answer on one of its addresses only."""

    async def insist(place: str, ask: _Question, pause_s: float) -> None:
        good = False
        while not good:
            good, said[place] = await ask()
            await asyncio.sleep(0 if good else pause_s)

    async def public() -> tuple[bool, str]:
        return await _on_public(target, instance, http, alone=alone)

    async def own() -> tuple[bool, str]:
        return await _on_own(target, instance, http)

    asking = {asyncio.create_task(insist("on the public address", public, _PUBLIC_POLL_S))}
    if instance.probe_url is not None:
        asking.add(asyncio.create_task(insist("on its own address", own, _POLL_S)))
    return asking


async def _on_own(target: Target, instance: Instance, http: httpx.AsyncClient) -> tuple[bool, str]:
    service, url = configured(target), probe.own_url(target, instance) or ""
    answer = await probe.ask(http, url, timeout_s=1, host=f"{service.host}:{service.port}")
    if answer.is_good and answer.token not in (None, instance.token):
        return False, f"{answer.detail}, but as instance {answer.token!r}"
    return answer.is_good, answer.detail


async def _on_public(
    target: Target, instance: Instance, http: httpx.AsyncClient, *, alone: bool
) -> tuple[bool, str]:
    service = configured(target)
    url = f"{probe.local_base(service)}{probe.path(target)}"
    pids = {p.pid for p in ending.family(instance)}
    answer = await probe.ask(http, url, timeout_s=1, family=lambda: pids)
    whose = answer.is_from(instance)
    if answer.is_good and whose is not True and not (whose is None and alone):
        return False, f"{answer.detail}, but from another instance"
    return answer.is_good, answer.detail
