"""Which process works on a deploy, and whether it is still there.

A name is read by people in the ledger, and by whoever wants to take a deploy over.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path

from airlock.service import table

_NAME = re.compile(r"(?P<host>.+):(?P<pid>[0-9]+):(?P<place>[0-9a-f]{8})-(?P<ticks>[0-9]+)")


def name() -> str:
    """This process: host and number for people; where and since when it runs, which is its alone.

    Process numbers come back, in containers soon; the time of a start after boot does not.
    """
    pid = os.getpid()
    process = table.read(pid)
    since = _ticks(process) if process else 0
    return f"{socket.gethostname()}:{pid}:{_place()}-{since}"


def is_gone(runner: str) -> bool:
    """Whether the process of that name has certainly ended.

    False where it runs, and where nobody can tell from here: another host, an earlier boot of this
    one, another container on it.
    """
    found = _NAME.fullmatch(runner)
    if found is None or (found["host"], found["place"]) != (socket.gethostname(), _place()):
        return False
    pid = int(found["pid"])
    process = table.read(pid)
    if process is None:
        return not _is_hidden(pid)
    return not process.is_alive or _ticks(process) != int(found["ticks"])


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that may not be looked at (hidepid, proc(5))."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ticks(process: table.Process) -> int:
    return round(process.create_time * os.sysconf("SC_CLK_TCK"))


@cache
def _place() -> str:
    """One boot, and one table of processes in it."""
    numbers = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{table.boot_id()} {numbers}".encode()).hexdigest()[:8]
