"""What is a test's own on a machine that runs other tests, too: its processes and its ports."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from airlock.service import table


def processes(root: Path) -> dict[int, str]:
    """Every process that belongs to a test's folder, by what it names or where it is."""
    found: dict[int, str] = {}
    # Not the folder whose name begins like it.
    mark = re.compile(rf"{re.escape(str(root))}(?!\w)")
    for process in table.everything():
        folder = table.directory(process.pid)
        words = table.command_line(process.pid)
        named = any(map(mark.search, words))
        inside = folder is not None and folder.is_relative_to(root)
        if process.pid != os.getpid() and (
            named or inside or any(map(mark.search, table.environ(process.pid).values()))
        ):
            found[process.pid] = " ".join(words)[:160]
    return found


def end_all(root: Path) -> None:
    """Whatever was started for that folder and is left, by its pid."""
    for pid in processes(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def port() -> Iterator[int]:
    """A loopback port for whatever the block starts, and no other test's meanwhile."""
    number, reservation = _reserved()
    with reservation:
        yield number


def _reserved() -> tuple[int, socket.socket]:
    """A port, and what keeps other tests from it.

    It is below those that the kernel gives out by itself. The reservation is an abstract socket: as
    wide as the network that the port is of, and gone with this process.
    """
    for number in random.sample(range(10_000, 32_768), 1000):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0airlock test port {number}")
            socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            reservation.close()
        else:
            return number, reservation
    raise OSError("1000 loopback ports are taken")
