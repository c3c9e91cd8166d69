"""The service that lives on the database: which instance runs, and how the next one replaces it.

``restart`` is the one entry for every adapter. It looks at what is running first, so a second call
with the same token finishes what an interrupted first one began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from airlock.errors import Refused
from airlock.service import table

if TYPE_CHECKING:
    from airlock.settings import ServiceSettings, Target

Method = Literal[
    "inherited socket", "reuseport overlap", "stop then start", "systemd", "command", "first start"
]

# The releases of instances that Airlock did not start.
BY_HAND = "started by hand"
AS_STARTED = "as started"
AS_THE_UNIT = "as the unit has it"
UNKNOWN = "unknown"
_NAMELESS = (BY_HAND, AS_STARTED, AS_THE_UNIT, UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMark:
    """A log file, and how long it was when the instance started: what follows is the instance's."""

    path: Path
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running (or former) process of the service.

    pid: 0 where the adapter cannot see the process (a container, for example).
    create_time: seconds after boot, so that no clock adjustment makes it another process.
    token: what Airlock handed it as AIRLOCK_INSTANCE; None when somebody else started it.
    probe_url: the start of a loopback address that only this instance answers on.
    """

    pid: int
    create_time: float
    boot_id: str
    token: str | None
    release: str
    started_at: datetime
    directory: Path
    probe_url: str | None = None
    logs: tuple[LogMark, ...] = ()

    @property
    def identity(self) -> tuple[int, float, str]:
        return self.pid, self.create_time, self.boot_id

    @property
    def ref(self) -> str | None:
        """The name of its release; None where Airlock did not give it one."""
        return None if self.release in _NAMELESS else self.release

    @property
    def is_visible(self) -> bool:
        """Whether its process can be looked at from here."""
        return self.pid > 0

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs; a zombie or a reused pid does not count."""
        if self.boot_id != table.boot_id():
            return False
        found = table.read(self.pid)
        return found is not None and found.is_alive and found.create_time == self.create_time

    def __str__(self) -> str:
        where = f"pid {self.pid}" if self.is_visible else "process not visible"
        return f"{where}, release {self.release}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Code to start the service from.

    ref: what was asked for; None means a working tree as it is.
    commit: full hash; for a working tree that of its HEAD, which says nothing about files that were
        never committed (see ``dirty``).
    directory: the working folder the service is started in.
    committed_at: None where there is no commit, or files that none has, or where it served before.
    uncommitted: what git status says of them.
    changed: files of a working tree that are newer than the instance that was started from it.
    """

    ref: str | None
    commit: str | None
    directory: Path
    dirty: bool = False
    committed_at: datetime | None = None
    uncommitted: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the service is told to call itself, and a person reads."""
        if self.ref is not None:
            return self.ref
        if self.commit is None:
            return "unversioned"
        return self.commit[:12] + ("-dirty" if self.dirty else "")

    @property
    def sentence(self) -> str:
        """Which code it is, for reports, questions and alerts."""
        commit = self.commit[:12] if self.commit else ""
        if self.ref is not None:
            return f"{self.ref}{f' ({commit})' if commit else ''}, in {self.directory}"
        where = f"the working tree {self.directory}, "
        said = [where + (f"at commit {commit}" if commit else "which is not in git")]
        if self.dirty:
            said.append(f"uncommitted: {', '.join(self.uncommitted) or 'files'}")
        if self.changed:
            since = "changed since the instance that serves was started"
            said.append(f"{since}: {', '.join(self.changed)}")
        return "; ".join(said)

    @property
    def can_go_back(self) -> bool:
        """Whether another commit can be started instead: not where one folder is all there is."""
        return self.ref is not None

    @staticmethod
    def of(instance: Instance) -> Release:
        """The code an earlier instance ran, to start it again."""
        return Release(ref=instance.ref, commit=None, directory=instance.directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One replacement.

    gap_s: the longest time without a good answer on the public address, beyond the pause between
        two probes (20 ms).
    ready_s: from the start of the new instance to its first good answer.
    """

    old: Instance | None
    new: Instance
    method: Method
    gap_s: float
    ready_s: float
    note: str = ""


def configured(target: Target) -> ServiceSettings:
    """The target's service. Raises Refused when it has none."""
    if target.service is None:
        raise Refused(
            f"Target {target.name} has no service configured, so there is none to restart. "
            f"Add [targets.{target.name}.service] to airlock.toml, or leave the step out."
        )
    return target.service


async def find(target: Target, known: Instance | None = None) -> Instance | None:
    """The running instance, or None.

    known: the one the ledger remembers; it is believed while it is alive.
    Raises Refused when something that is not the service has its port.
    """
    from airlock.service import command, process, systemd

    if known is not None and known.is_visible and known.is_alive:
        return known
    adapter = configured(target).adapter
    if adapter == "process":
        return await process.find(target)
    found = await systemd.find(target) if adapter == "systemd" else command.find(target)
    if found is None or known is None or found.directory != known.directory:
        return found
    # In a container nobody can see which process it is; elsewhere its init restarted it.
    return replace(found, release=known.release, token=known.token if not found.pid else None)


def is_alone(target: Target, instance: Instance) -> bool:
    """Whether no other instance of the service runs, as far as the adapter can have several."""
    from airlock.service import process

    if configured(target).adapter != "process":
        return True
    try:
        return all(each.identity == instance.identity for each in process.running(target))
    except Refused:
        return True  # whose the port is, the health check will show


async def restart(target: Target, release: Release, *, old: Instance | None, token: str) -> Restart:
    """Replace the running instance by one of ``release``.

    old: what the ledger remembers; what really runs is looked up.
    token: names this very start, for example "deploy-42-forward". The same token again finds the
        instance that an interrupted call started.
    Raises Refused when the port belongs to something else, and Broken when the new instance is not
    ready within ready_s; the message says whether the old one still serves.
    """
    from airlock.service import command, process, systemd

    adapter = configured(target).adapter
    if adapter == "process":
        return await process.restart(target, release, old=old, token=token)
    if adapter == "systemd":
        return await systemd.restart(target, release, old=old, token=token)
    return await command.restart(target, release, old=old, token=token)


async def stop(target: Target, instance: Instance) -> str:
    """End one instance that the process adapter started or found; says how it went."""
    from airlock.service import ending

    return await ending.stop(instance, configured(target).drain_s)
