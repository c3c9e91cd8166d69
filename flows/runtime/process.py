"""Children of ours: started, waited for, and ended in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Literal

from airlock.errors import Transient
from airlock.server import dying_with_parent
from flows.runtime.command import ROOT


@asynccontextmanager
async def process(
    command: list[str],
    *,
    log: Path,
    env: dict[str, str],
    end_s: float,
    pass_fds: tuple[int, ...] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in its own process group, its output in a log file that only we may read."""
    with private(log) as output:
        child = await asyncio.create_subprocess_exec(
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
        yield child
    finally:
        await asyncio.shield(_end(child, end_s))


async def _end(child: asyncio.subprocess.Process, end_s: float) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            await asyncio.wait_for(child.wait(), end_s)
        except TimeoutError:
            # Its leader has not ended, so the group's number is still ours.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


def refuse_if_ended(child: asyncio.subprocess.Process, what: str, log: Path) -> None:
    """Raises Transient with the end of its log when a child is gone that should start."""
    if child.returncode is not None:
        raise Transient(
            f"The Prefect {what} ended with {child.returncode} while it started. "
            f"Its last lines:\n{tail(log)}"
        )


def let_children_hear_interrupts() -> None:
    """A shell without job control starts background jobs deaf to SIGINT, and deafness is inherited.

    Prefect's worker turns SIGTERM into SIGINT, so a deaf one would never end.
    """
    with suppress(ValueError):  # not in the main thread: nothing can be changed from here
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def private(path: Path, mode: Literal["wb", "ab"] = "wb") -> BufferedWriter:
    """Open for writing; a new file may be read by its owner only."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
