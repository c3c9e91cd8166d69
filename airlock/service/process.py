"""The "process" adapter: Airlock starts the service, replaces it and ends it, with no init system.

A replacement loses no connection where the service takes its sockets as systemd hands them over
(LISTEN_FDS, descriptor 3): old and new accept from one queue, and the old one is told to drain only
after the new one has answered. Descriptor 4 is a loopback socket on which only the new one can
answer. A service that binds its own port is stopped first, unless it binds with SO_REUSEPORT; the
gap is measured either way.

It cannot promise: a life beyond the control group Airlock itself runs in (a worker under systemd
needs KillMode=process, or the systemd adapter); a restart after a crash or a reboot; kept
connections, unless the old instance says on its last answers that it closes them; and no gap where
the kernel does not hand the listening socket over (an ordinary user under kernel.yama.ptrace_scope
above 0).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.errors import Broken, Refused
from airlock.service import (
    BY_HAND,
    UNKNOWN,
    Instance,
    LogMark,
    Method,
    Release,
    Restart,
    configured,
    log,
    probe,
    sockets,
    starting,
    table,
)
from airlock.service.ending import family, stop
from airlock.service.starting import Trial
from airlock.settings import ServiceSettings, Target

if TYPE_CHECKING:
    import httpx

# One that never served anybody has nobody to say goodbye to.
_FAILED_DRAIN_S = 1.0


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
    if variables.get("AIRLOCK_SERVICE") != starting.home(target):
        return None
    token = variables.get("AIRLOCK_INSTANCE", "")
    return Instance(
        pid=process.pid,
        create_time=process.create_time,
        boot_id=table.boot_id(),
        token=token,
        release=variables.get("RELEASE", UNKNOWN),
        started_at=process.started_at,
        directory=table.directory(process.pid) or configured(target).directory,
        probe_url=variables.get("AIRLOCK_PROBE_URL"),
        logs=(LogMark(path=log.path(target, token)), *starting.watched(target)),
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
        release=BY_HAND,
        started_at=process.started_at,
        directory=folder or service.directory,
        logs=starting.watched(target),
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
    trial = await starting.until_ready(
        target, instance, http, alone=serving is None, inherited=None
    )
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
        offered = sockets.inherit(self.service, self.old)
        if offered is not None:
            given, method = offered
            trial = await self._try(given)
            if trial.failure is None:
                return await self._done(trial, method)
            if not self._may_bind_itself(trial):
                raise self._failed(trial)
        if self.old is None:
            return await self._with_own_port("first start")
        # A public socket that Airlock made says nothing about how the service itself binds.
        if self.old.probe_url is None and sockets.can_share(self.service):
            return await self._with_own_port("reuseport overlap")
        return await self._after_the_old(self.old)

    def _may_bind_itself(self, trial: Trial) -> bool:
        """Whether it may have failed for not knowing inherited sockets."""
        adopts = self.old is not None and self.old.probe_url is not None
        return trial.binds_itself or (trial.died and not adopts)

    async def _try(self, given: sockets.Sockets | None, *, alone: bool | None = None) -> Trial:
        """Start an instance and wait until it is ready; one that is not is ended."""
        try:
            instance = await starting.start(
                self.target, self.release, token=self.token, sockets=given
            )
            trial = await starting.until_ready(
                self.target,
                instance,
                self.http,
                alone=self.old is None if alone is None else alone,
                inherited=given.inode if given else None,
            )
            if trial.failure is None and given is not None:
                # Changes nothing where the instance has done it itself.
                given.public.listen(sockets.BACKLOG)
        except asyncio.CancelledError:
            for each in running(self.target):
                if each.token == self.token:
                    await stop(each, _FAILED_DRAIN_S)
            raise
        finally:
            if given is not None:
                given.close()
        if trial.failure is not None:
            await stop(instance, min(self.service.drain_s, _FAILED_DRAIN_S))
        return trial

    async def _with_own_port(self, method: Method) -> Restart:
        trial = await self._try(None)
        if trial.failure is not None:
            raise self._failed(trial)
        return await self._done(trial, method)

    async def _after_the_old(self, old: Instance) -> Restart:
        how = await stop(old, self.service.drain_s)
        offered = sockets.inherit(self.service, None) if old.probe_url else None
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
        release = Release.of(old)
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
    return Restart(
        old=old, new=trial.instance, method=method, gap_s=0.0, ready_s=trial.ready_s, note=note
    )
