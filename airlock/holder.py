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
    return f"{socket.gethostname()}:{pid}:{_place()}-{_ticks(pid)}"


def is_gone(runner: str) -> bool:
    """Whether the process of that name has certainly ended.

    False where it runs, and where nobody can tell from here: another host, an earlier boot of this
    one, another container on it.
    """
    found = _NAME.fullmatch(runner)
    if found is None or (found["host"], found["place"]) != (socket.gethostname(), _place()):
        return False
    return _ticks(int(found["pid"])) != int(found["ticks"])


def _ticks(pid: int) -> int | None:
    process = table.read(pid)
    if process is None or not process.is_alive:
        return None
    return round(process.create_time * os.sysconf("SC_CLK_TCK"))


@cache
def _place() -> str:
    """One boot, and one table of processes in it."""
    numbers = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{table.boot_id()} {numbers}".encode()).hexdigest()[:8]
