"""The "process" adapter: Airlock starts the service, replaces it and ends it, with no init system.

A replacement loses no connection where the service takes its sockets as systemd hands them over
(LISTEN_FDS, descriptor 3): old and new accept from one queue, and the old one is told to drain only
after the new one has answered. Descriptor 4 is a loopback socket on which only the new one can
answer. A service that binds its own port is stopped first, unless it binds with SO_REUSEPORT; the
gap is measured either way.

It cannot promise: a life beyond the control group Airlock itself runs in (a worker under systemd
needs KillMode=process, or the systemd adapter); a restart after a crash or a reboot; keep-alive
connections of clients, which the old instance closes as it drains; and no gap where the kernel does
not hand the listening socket over (an ordinary user under kernel.yama.ptrace_scope above 0).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.errors import Broken, Refused
from airlock.service import (
    Instance,
    LogMark,
    Method,
    Release,
    Restart,
    configured,
    log,
    probe,
    table,
)
from airlock.settings import ServiceSettings, Target, read_env_file

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

LAUNCH = Path(__file__).parent / "launch.py"
BACKLOG = 2048
_POLL_S = 0.02
_LAUNCH_S = 10
_KILL_S = 5
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


@dataclass(slots=True, kw_only=True)
class Sockets:
    """What a new instance inherits: the public socket, and one only it answers on."""

    public: socket.socket
    own: socket.socket

    @property
    def probe_url(self) -> str:
        return f"http://127.0.0.1:{self.own.getsockname()[1]}"

    @property
    def inode(self) -> int:
        return os.fstat(self.public.fileno()).st_ino

    def close(self) -> None:
        """Let go of Airlock's own handles; the instance keeps its own."""
        self.public.close()
        self.own.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a start went. failure is None when the instance is ready."""

    instance: Instance
    ready_s: float
    failure: str | None = None
    died: bool = False
    binds_itself: bool = False


# Commands and environments, built purely


def launch_command(
    command: tuple[str, ...], *, fds: tuple[int, ...], log_file: Path, directory: Path
) -> list[str]:
    """The command that starts the service in a session of its own."""
    return [
        *(sys.executable or "python3", "-I", "-S", str(LAUNCH)),
        *("--fds", ",".join(map(str, fds))),
        *("--log", str(log_file)),
        *("--directory", str(directory)),
        *("--", *command),
    ]


def base_environ() -> dict[str, str]:
    """The part of our environment that any program may see."""
    return {
        name: value for name, value in os.environ.items() if name in _BASE or name.startswith("LC_")
    }


def service_environ(
    target: Target, release: Release, token: str, probe_url: str | None = None
) -> dict[str, str]:
    """What the service is started with. Holds secrets: hand it on, never log or store it."""
    service = configured(target)
    named = {name: target.variable(name) for name in service.env}
    facts = {
        "HOST": service.host,
        "PORT": str(service.port),
        "RELEASE": release.name,
        "AIRLOCK_INSTANCE": token,
        "AIRLOCK_SERVICE": _home(target),
    }
    if probe_url:
        facts["AIRLOCK_PROBE_URL"] = probe_url
    return {**base_environ(), **read_env_file(service.env_file), **named, **facts}


def _home(target: Target) -> str:
    """What tells this target's instances from those of others on the machine."""
    return str(target.service_dir.resolve())


# Looking


async def find(target: Target) -> Instance | None:
    """The instance that serves, whoever started it. Raises Refused for a stranger on the port."""
    found = running(target)
    return found[0] if found else None


def running(target: Target) -> list[Instance]:
    """Every instance of this service, the one that serves longest first.

    Those Airlock started carry its mark in their environment; one started by hand is known by the
    port, the command line and the folder. Anything else on the port is refused by name.
    """
    service = configured(target)
    ours = [i for p in table.everything() if (i := _ours(target, p)) is not None]
    known = {p.pid for i in ours for p in family(i)}
    inodes = table.listening(service.host, service.port)
    held = table.holders(inodes)
    mine_only = {fd_inode for fd_inode in inodes if fd_inode in table.descriptors(os.getpid())}
    unseen = inodes - mine_only - {inode for holding in held.values() for inode in holding}
    if unseen:
        raise Refused(
            f"Port {service.port} on {service.host} belongs to a process that cannot be seen from "
            "here, probably another user's. Run Airlock as that user, or choose another port."
        )
    by_hand = [_by_hand(target, p) for p in _tops(set(held) - known)]
    serving = [i for i in ours if {p.pid for p in family(i)} & set(held)]
    waiting = [i for i in ours if i not in serving]
    return sorted(serving + by_hand, key=lambda i: i.create_time) + waiting


def _ours(target: Target, process: table.Process) -> Instance | None:
    if process.session != process.pid:
        return None
    variables = table.environ(process.pid)
    if variables.get("AIRLOCK_SERVICE") != _home(target):
        return None
    token = variables.get("AIRLOCK_INSTANCE", "")
    return Instance(
        pid=process.pid,
        create_time=process.create_time,
        boot_id=table.boot_id(),
        token=token,
        release=variables.get("RELEASE", "unknown"),
        started_at=process.started_at,
        directory=table.directory(process.pid) or configured(target).directory,
        probe_url=variables.get("AIRLOCK_PROBE_URL"),
        logs=(LogMark(path=log.path(target, token)), *_watched(target)),
    )


def _tops(pids: set[int]) -> list[table.Process]:
    """Those whose parents are not among them: the master of a service that forks."""
    found = [p for pid in pids if (p := table.read(pid)) is not None]
    return [p for p in found if p.parent not in pids]


def _by_hand(target: Target, process: table.Process) -> Instance:
    service = configured(target)
    command, folder = table.command_line(process.pid), table.directory(process.pid)
    if not matches(command, folder, service, target.service_dir):
        shown = log.mask(target, " ".join(command)) or "its command cannot be read"
        raise Refused(
            f"Port {service.port} on {service.host} is taken by pid {process.pid} ({shown}) in "
            f"{folder or 'an unreadable folder'}; expected was {' '.join(service.command)!r} in "
            f"{service.directory}. End that process, or choose another port for the service."
        )
    return Instance(
        pid=process.pid,
        create_time=process.create_time,
        boot_id=table.boot_id(),
        token=None,
        release="started by hand",
        started_at=process.started_at,
        directory=folder or service.directory,
        logs=_watched(target),
    )


def matches(
    command: list[str], folder: Path | None, service: ServiceSettings, service_dir: Path
) -> bool:
    """Whether a command line is the configured command, run in the service's folder."""
    wanted = service.command
    if folder is None or len(command) < len(wanted):
        return False
    program, *arguments = command[-len(wanted) :]
    if not _same_program(command[0], wanted[0]) and not _same_program(program, wanted[0]):
        return False
    if not all(_same_file(a, b) for a, b in zip(arguments, wanted[1:], strict=True)):
        return False
    homes = [service.directory.resolve(), (service_dir / "releases").resolve()]
    places = [folder.resolve(), *((folder / a).resolve() for a in arguments if "/" in a)]
    return any(place.is_relative_to(home) for place in places for home in homes)


def _same_file(found: str, wanted: str) -> bool:
    return found == wanted or ("/" in found + wanted and Path(found).name == Path(wanted).name)


def _same_program(found: str, wanted: str) -> bool:
    """python3, /usr/bin/python3 and python3.11 are one program."""
    if Path(found).name == Path(wanted).name:
        return True
    if Path(found).name.startswith("python") and Path(wanted).name.startswith("python"):
        return True
    located = shutil.which(wanted)
    return located is not None and Path(located).resolve() == Path(found).resolve()


def _watched(target: Target) -> tuple[LogMark, ...]:
    return (log.mark(target.health.log_file),) if target.health.log_file else ()


# Ending


def family(instance: Instance) -> list[table.Process]:
    found = table.read(instance.pid)
    # Somebody's shell leads the session of a service started by hand: only its own children go.
    leads = instance.token is not None or (found is not None and found.session == instance.pid)
    return table.family(instance.pid, instance.create_time, whole_session=leads)


def _send(process: table.Process, number: signal.Signals) -> None:
    """Signal exactly this process: the handle is opened before the identity is checked."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            current = table.read(process.pid)
            if current is not None and current.create_time == process.create_time:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _left(processes: list[table.Process]) -> list[table.Process]:
    return [
        process
        for process in processes
        if (now := table.read(process.pid)) is not None
        and now.is_alive
        and now.create_time == process.create_time
    ]


async def stop(instance: Instance, drain_s: float) -> str:
    """End an instance with its children: TERM, up to drain_s, then KILL. Says how it went.

    The leader is told first; what it leaves behind is told when it is gone.
    Raises Broken when something survives KILL.
    """
    if instance.boot_id != table.boot_id():
        return "was gone"
    started = time.monotonic()
    processes = family(instance)
    try:
        for process in _leader(processes, instance):
            _send(process, signal.SIGTERM)
        if not await _gone(lambda: _left(_leader(processes, instance)), drain_s):
            logger.warning("Instance ignored TERM", extra={"pid": instance.pid, "drain_s": drain_s})
        rest = _everyone(instance, processes)
        for process in rest:
            _send(process, signal.SIGTERM)
        budget = max(0.0, drain_s - (time.monotonic() - started))
        await _gone(lambda: _everyone(instance, processes), budget)
        killed = _everyone(instance, processes)
        for process in killed:
            _send(process, signal.SIGKILL)
        gone = await _gone(lambda: _everyone(instance, processes), _KILL_S)
    except PermissionError as error:
        raise Refused(
            f"The service ({instance}) belongs to another user and cannot be ended from here. "
            "Run Airlock as that user."
        ) from error
    if not gone:
        pids = ", ".join(str(p.pid) for p in _everyone(instance, processes))
        raise Broken(f"The service ({instance}) survives KILL: pid {pids}. Look at its state.")
    took_s = time.monotonic() - started
    logger.info("Instance ended", extra={"pid": instance.pid, "killed": len(killed)})
    return f"killed after {took_s:.1f} s" if killed else f"drained in {took_s:.1f} s"


def _leader(processes: list[table.Process], instance: Instance) -> list[table.Process]:
    return [p for p in processes if p.pid == instance.pid]


def _everyone(instance: Instance, processes: list[table.Process]) -> list[table.Process]:
    """Those of the family that are left, and those it has grown since."""
    now = {(p.pid, p.create_time): p for p in (*_left(processes), *family(instance))}
    return list(now.values())


async def _gone(left: Callable[[], list[table.Process]], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while left():
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_POLL_S)
    return True


# Starting


async def start(
    target: Target, release: Release, *, token: str, sockets: Sockets | None = None
) -> Instance:
    """Start one instance; it belongs to init at once. Does not wait until it is ready.

    Raises Broken when the command cannot be executed, Refused when a variable is missing.
    """
    service = configured(target)
    log_file = log.path(target, token)
    logs = (log.mark(log_file), *_watched(target))
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
        pass_fds=fds,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LAUNCH_S):
            output, problem = await launcher.communicate()
    except TimeoutError:
        launcher.kill()
        await launcher.wait()
        raise Broken(
            f"Starting the service took more than {_LAUNCH_S} s. Is the machine well?"
        ) from None
    if launcher.returncode:
        reason = problem.decode(errors="replace").strip().splitlines()[-1:]
        raise Broken(
            f"The service could not be started: {' '.join(reason) or 'no reason given'}. Check "
            "command and directory in airlock.toml."
        )
    return int(output)


async def _wait(
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
    service = configured(target)
    begun, last = time.monotonic(), "it was never asked"

    def trial(failure: str | None, *, died: bool = False, binds_itself: bool = False) -> Trial:
        ready_s = round(time.monotonic() - begun, 3)
        return Trial(
            instance=instance,
            ready_s=ready_s,
            failure=failure,
            died=died,
            binds_itself=binds_itself,
        )

    while time.monotonic() - begun < service.ready_s:
        if not instance.is_alive:
            return trial(f"it ended {time.monotonic() - begun:.1f} s after its start", died=True)
        if inherited is not None and _binds_itself(service, instance, inherited):
            return trial("it binds its own port beside the inherited socket", binds_itself=True)
        good, last = await _while_alive(
            instance, _answers(target, instance, http, alone=alone), last
        )
        # One that answers and ends in the same moment is not ready.
        if good and instance.is_alive:
            return trial(None)
        await asyncio.sleep(_POLL_S)
    return trial(f"it was not ready within {service.ready_s:g} s; last answer: {last}")


def _binds_itself(service: ServiceSettings, instance: Instance, inherited: int) -> bool:
    others = table.listening(service.host, service.port) - {inherited}
    return bool(others) and any(others & set(table.descriptors(p.pid)) for p in family(instance))


async def _while_alive(
    instance: Instance, asking: Coroutine[None, None, tuple[bool, str]], last: str
) -> tuple[bool, str]:
    """The outcome of asking, or at once a bad one when the instance ends meanwhile."""
    task = asyncio.ensure_future(asking)
    try:
        while not task.done() and instance.is_alive:
            await asyncio.wait({task}, timeout=_POLL_S)
        return task.result() if task.done() else (False, last)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _answers(
    target: Target, instance: Instance, http: httpx.AsyncClient, *, alone: bool
) -> tuple[bool, str]:
    """Whether this instance answers well, on its own address or, provably, on the public one."""
    service = configured(target)
    questions = [_on_public(target, instance, http, alone=alone)]
    if own := probe.own_url(target, instance):
        questions.append(_on_own(own, service, instance, http))
    tasks = [asyncio.ensure_future(question) for question in questions]
    last = "none"
    try:
        # Whichever proves it first: a service may answer on one of the two only.
        for task in asyncio.as_completed(tasks):
            good, last = await task
            if good:
                return True, last
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return False, last


async def _on_own(
    url: str, service: ServiceSettings, instance: Instance, http: httpx.AsyncClient
) -> tuple[bool, str]:
    answer = await probe.ask(http, url, timeout_s=1, host=f"{service.host}:{service.port}")
    if answer.is_good and answer.token not in (None, instance.token):
        return False, f"{answer.detail}, but as instance {answer.token!r}"
    return answer.is_good, answer.detail


async def _on_public(
    target: Target, instance: Instance, http: httpx.AsyncClient, *, alone: bool
) -> tuple[bool, str]:
    service = configured(target)
    url = f"{probe.local_base(service)}{probe.path(target)}"
    pids = {p.pid for p in family(instance)}
    answer = await probe.ask(http, url, timeout_s=1, family=lambda: pids)
    whose = answer.is_from(instance)
    if answer.is_good and whose is not True and not (whose is None and alone):
        return False, f"{answer.detail}, but from another instance"
    return answer.is_good, answer.detail


# Sockets


def bind(service: ServiceSettings, *, listen: bool) -> socket.socket:
    """A new public socket, shareable. Raises OSError when somebody holds the port alone."""
    family, _, _, _, address = socket.getaddrinfo(
        service.host, service.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(address)
        if listen:
            opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _can_share(service: ServiceSettings) -> bool:
    """Whether whoever holds the port lets another socket have it too."""
    try:
        bind(service, listen=False).close()
    except OSError:
        return False
    return True


def _own_socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.bind(("127.0.0.1", 0))
    opened.listen(BACKLOG)
    return opened


def inherit(service: ServiceSettings, old: Instance | None) -> tuple[Sockets, Method] | None:
    """The sockets for a new instance, or None when the port can only be had after the old one.

    From the old instance itself where the kernel allows it; else one that shares the port.
    """
    if not service.inherit_socket:
        return None
    taken = _take(service, old) if old else None
    method: Method = (
        "inherited socket" if taken else ("reuseport overlap" if old else "first start")
    )
    if taken is None:
        try:
            # Beside an old one it does not listen yet: connections would wait in a queue that
            # nobody serves until the new instance is up.
            taken = bind(service, listen=old is None)
        except OSError:
            return None
    return Sockets(public=taken, own=_own_socket()), method


def _take(service: ServiceSettings, old: Instance) -> socket.socket | None:
    inodes = table.listening(service.host, service.port)
    for process in family(old):
        for inode, descriptor in table.descriptors(process.pid).items():
            if inode in inodes:
                with contextlib.suppress(OSError):
                    return table.take_socket(process.pid, descriptor)
    return None


# Replacing


async def restart(target: Target, release: Release, *, old: Instance | None, token: str) -> Restart:
    """See ``airlock.service.restart``."""
    found = running(target)
    earlier = [i for i in found if i.token == token]
    others = [i for i in found if i.token != token]
    serving = next((i for i in others if old and i.identity == old.identity), None)
    serving = serving or (others[0] if others else None)
    async with probe.client() as http:
        gap = probe.GapMeter(probe.local_base(configured(target)) + probe.path(target))
        async with gap.running(http):
            done = None
            if earlier:
                done = await _finish(target, earlier, serving, http)
            if done is None:
                done = await _Swap(target, release, serving, token, http).run()
            # Left by an interrupted call of another deploy: ours, and no longer wanted.
            for extra in others:
                if extra is not serving:
                    await stop(extra, configured(target).drain_s)
            await gap.settle(2)
            gap_s = gap.gap_s if serving else 0.0
    return replace(done, gap_s=gap_s)


async def _finish(
    target: Target, earlier: list[Instance], serving: Instance | None, http: httpx.AsyncClient
) -> Restart | None:
    """What an interrupted call with this token began, if its instance is well; else it is ended."""
    service = configured(target)
    instance, *spare = earlier
    trial = await _wait(target, instance, http, alone=serving is None, inherited=None)
    if trial.failure is not None:
        spare = earlier
    for each in spare:
        await stop(each, service.drain_s)
    if trial.failure is not None:
        return None
    how = f"; the old one {await stop(serving, service.drain_s)}" if serving else ""
    return Restart(
        old=serving,
        new=instance,
        method="inherited socket" if instance.probe_url else "stop then start",
        gap_s=0.0,
        ready_s=trial.ready_s,
        note=f"an earlier try had started it{how}",
    )


class _Swap:
    """One replacement, the ways in the order of what they cost the clients."""

    def __init__(
        self,
        target: Target,
        release: Release,
        old: Instance | None,
        token: str,
        http: httpx.AsyncClient,
    ) -> None:
        self.target, self.release, self.old, self.token, self.http = (
            target,
            release,
            old,
            token,
            http,
        )
        self.service = configured(target)

    async def run(self) -> Restart:
        offered = inherit(self.service, self.old)
        if offered is not None:
            sockets, method = offered
            trial = await self._try(sockets)
            if trial.failure is None:
                return await self._done(trial, method)
            if not self._may_bind_itself(trial):
                raise self._failed(trial)
        if self.old is None:
            return await self._with_own_port("first start")
        # A public socket that Airlock made says nothing about how the service itself binds.
        if self.old.probe_url is None and _can_share(self.service):
            return await self._with_own_port("reuseport overlap")
        return await self._after_the_old(self.old)

    def _may_bind_itself(self, trial: Trial) -> bool:
        """Whether it may have failed for not knowing inherited sockets."""
        adopts = self.old is not None and self.old.probe_url is not None
        return trial.binds_itself or (trial.died and not adopts)

    async def _try(self, sockets: Sockets | None, *, alone: bool | None = None) -> Trial:
        """Start an instance and wait until it is ready; one that is not is ended."""
        try:
            instance = await start(self.target, self.release, token=self.token, sockets=sockets)
            trial = await _wait(
                self.target,
                instance,
                self.http,
                alone=self.old is None if alone is None else alone,
                inherited=sockets.inode if sockets else None,
            )
            if trial.failure is None and sockets is not None:
                # Changes nothing where the instance has done it itself.
                sockets.public.listen(BACKLOG)
        except asyncio.CancelledError:
            for each in running(self.target):
                if each.token == self.token:
                    await stop(each, self.service.drain_s)
            raise
        finally:
            if sockets is not None:
                sockets.close()
        if trial.failure is not None:
            await stop(instance, self.service.drain_s)
        return trial

    async def _with_own_port(self, method: Method) -> Restart:
        trial = await self._try(None)
        if trial.failure is not None:
            raise self._failed(trial)
        return await self._done(trial, method)

    async def _after_the_old(self, old: Instance) -> Restart:
        how = await stop(old, self.service.drain_s)
        offered = inherit(self.service, None) if old.probe_url else None
        try:
            trial = await self._try(offered[0] if offered else None, alone=True)
        except Broken as error:
            await self._bring_back(old)
            raise Broken(f"{error} The old one was started again.") from error
        if trial.failure is None:
            note = f"the old one {how}"
            return _report(old, trial, "stop then start", note)
        back = await self._bring_back(old)
        raise Broken(f"{self._told(trial)}{back}")

    async def _bring_back(self, old: Instance) -> str:
        """Start the old release again, once: something serves while the deploy rolls back."""
        release = Release(ref=old.release, commit=None, directory=old.directory)
        again = _Swap(self.target, release, None, f"{self.token}-back", self.http)
        try:
            found = await again.run()
        except (Broken, Refused) as error:
            return f"The old release did not come back either: {error}"
        return f"The old release was started again ({found.new})."

    async def _done(self, trial: Trial, method: Method) -> Restart:
        note = ""
        if self.old is not None:
            note = f"the old one {await stop(self.old, self.service.drain_s)}"
        if not trial.instance.is_alive:
            raise Broken(
                f"The new instance ({trial.instance}) answered and then ended. "
                f"Its last lines:\n{log.tail(self.target, trial.instance.logs)}"
            )
        return _report(self.old, trial, method, note)

    def _told(self, trial: Trial) -> str:
        lines = log.tail(self.target, trial.instance.logs)
        return (
            f"The new instance ({trial.instance}) was ended: {trial.failure}; expected was a good "
            f"answer on {probe.path(self.target)}. Its last lines:\n{lines}\n"
        )

    def _failed(self, trial: Trial) -> Broken:
        serves = self.old is not None and self.old.is_alive
        state = f"The old one ({self.old}) still serves." if serves else "Nothing serves now."
        return Broken(f"{self._told(trial)}{state} Mend the release and deploy again.")


def _report(old: Instance | None, trial: Trial, method: Method, note: str) -> Restart:
    logger.info("Instance ready", extra={"pid": trial.instance.pid, "method": method})
    return Restart(
        old=old, new=trial.instance, method=method, gap_s=0.0, ready_s=trial.ready_s, note=note
    )
