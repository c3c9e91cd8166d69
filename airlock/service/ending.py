"""Ending one instance with all it started, and never anything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from airlock.errors import Broken, Refused
from airlock.service import Instance, table

logger = logging.getLogger(__name__)

_POLL_S = 0.02
_KILL_S = 5


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
