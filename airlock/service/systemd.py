"""The "systemd" adapter: a unit that exists is restarted or reloaded with systemctl.

It cannot promise: no gap (``restart`` stops first; a socket unit or a service that reloads itself
closes it), nor which folder the code comes from (let the unit's WorkingDirectory be Airlock's
``current`` link), nor the environment, which is the unit's own: the answer then names no token, and
the new instance is known by its main pid alone.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airlock.errors import Broken, Refused
from airlock.service import (
    AS_THE_UNIT,
    Instance,
    Release,
    Restart,
    configured,
    delegated,
    log,
    probe,
    table,
)
from airlock.settings import Target

if TYPE_CHECKING:
    import httpx

_PROPERTIES = ("MainPID", "ActiveState", "SubState", "Result")


def show_command(unit: str) -> list[str]:
    """Asks for a unit's state, one NAME=value a line."""
    return ["systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", unit]


def action_command(action: str, unit: str) -> list[str]:
    """Tells a unit to restart or reload."""
    return ["systemctl", action, "--", unit]


def journal_command(unit: str) -> list[str]:
    """The unit's last lines."""
    return ["journalctl", "--no-pager", "--lines=15", "--output=cat", f"--unit={unit}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """What systemctl show says."""

    pid: int
    active: str
    sub: str
    result: str

    @property
    def is_running(self) -> bool:
        return self.active == "active" and self.pid > 0


def parse_state(text: str) -> UnitState:
    """The output of ``show_command``."""
    split = (line.partition("=") for line in text.splitlines())
    facts = {name: value for name, _, value in split}
    pid = facts.get("MainPID", "0")
    return UnitState(
        pid=int(pid) if pid.isdigit() else 0,
        active=facts.get("ActiveState", "unknown"),
        sub=facts.get("SubState", "unknown"),
        result=facts.get("Result", "unknown"),
    )


def _unit(target: Target) -> str:
    if unit := configured(target).unit:
        return unit
    raise Refused(
        f"Target {target.name} has the systemd adapter and no unit. Add unit = "
        '"NAME.service" to its service section.'
    )


async def _state(target: Target, unit: str) -> UnitState:
    if shutil.which("systemctl") is None:
        raise Refused(
            "systemctl is not on PATH, and the service's adapter is systemd. Run Airlock on the "
            "service's machine, or choose the adapter process or command."
        )
    return parse_state(await delegated.run(target, show_command(unit)))


def _instance(target: Target, state: UnitState, release: str) -> Instance | None:
    found = table.read(state.pid) if state.pid else None
    if found is None or not found.is_alive:
        return None
    watched = target.health.log_file
    return Instance(
        pid=found.pid,
        create_time=found.create_time,
        boot_id=table.boot_id(),
        token=None,
        release=release,
        started_at=datetime.now(UTC),
        directory=table.directory(found.pid) or configured(target).directory,
        logs=(log.mark(watched),) if watched else (),
    )


async def find(target: Target) -> Instance | None:
    """The unit's main process, or None when it is not active."""
    state = await _state(target, _unit(target))
    return _instance(target, state, AS_THE_UNIT) if state.is_running else None


async def restart(target: Target, release: Release, *, old: Instance | None, token: str) -> Restart:
    """See ``airlock.service.restart``. Repeating it restarts the unit once more."""
    del token
    service, unit = configured(target), _unit(target)
    before = await find(target) or (old if old and old.is_alive else None)
    watched = target.health.log_file
    logs = (log.mark(watched),) if watched else ()
    async with probe.client() as http:
        gap = probe.GapMeter(probe.public_url(target))
        async with delegated.current(target, release), gap.running(http):
            await delegated.run(
                target,
                action_command(service.unit_action, unit),
                timeout_s=service.ready_s + service.drain_s + delegated.COMMAND_S,
            )
            new, ready_s = await _new(target, unit, release, before)
            ready_s += await _ready(target, unit, http)
            await gap.settle(2)
            gap_s = gap.gap_s if before else 0.0
    return Restart(
        old=before,
        new=Instance(
            pid=new.pid,
            create_time=new.create_time,
            boot_id=new.boot_id,
            token=None,
            release=release.name,
            started_at=new.started_at,
            directory=release.directory,
            logs=logs,
        ),
        method="systemd",
        gap_s=gap_s,
        ready_s=round(ready_s, 3),
        note=f"systemctl {service.unit_action} {unit}",
    )


async def _new(
    target: Target, unit: str, release: Release, before: Instance | None
) -> tuple[Instance, float]:
    """The main process after the action: another one after a restart."""
    service = configured(target)
    loop = asyncio.get_running_loop()
    begun, state = loop.time(), None
    while loop.time() - begun < service.ready_s:
        state = await _state(target, unit)
        found = _instance(target, state, release.name) if state.is_running else None
        same = found is not None and before is not None and found.identity == before.identity
        if found is not None and (not same or service.unit_action != "restart"):
            return found, loop.time() - begun
        if state.active == "failed":
            break
        await asyncio.sleep(0.1)
    seen = (
        f"{state.active}/{state.sub}, result {state.result}, pid {state.pid}"
        if state
        else "nothing"
    )
    raise Broken(
        f"Unit {unit} is {seen} after systemctl {service.unit_action}; expected was active with a "
        f"new main process. Its last lines:\n{await _journal(target, unit)}"
    )


async def _ready(target: Target, unit: str, http: httpx.AsyncClient) -> float:
    try:
        return await delegated.until_answering(target, http, token=None)
    except Broken as error:
        raise Broken(f"{error} Its last lines:\n{await _journal(target, unit)}") from error


async def _journal(target: Target, unit: str) -> str:
    if shutil.which("journalctl") is None:
        return "(no journalctl here)"
    return await delegated.run(target, journal_command(unit), timeout_s=10, may_fail=True)
