"""PostgreSQL's programs, run so that none outlives us, hangs for ever, or shows a password."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from airlock import binaries, dsn
from airlock.errors import Transient
from airlock.server import dying_with_parent

log = logging.getLogger(__name__)

DEADLINE_S = 6 * 3600.0
_TAIL_BYTES = 4000
_GRACE_S = 3.0
_KEPT = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "KRB5CCNAME")


def environment(url: str | None) -> dict[str, str]:
    """A tool's whole environment: nothing of ours but what it needs."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    there = dsn.for_programs(dsn.resolve(url, os.environ)) if url else {}
    return {"LC_ALL": "C.UTF-8", "PGAPPNAME": "airlock snapshot"} | kept | there


async def run(
    command: list[str],
    *,
    env: Mapping[str, str],
    produces: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Run one tool to its end.

    produces: a file that must be there, and not be empty, when the tool says it succeeded.
    Raises Transient with the end of what the tool said when it fails or takes too long, Refused
    when TLS is asked for and the tool was built without.
    Whatever happens, neither it nor a child of it is left.
    """
    name = Path(command[0]).name
    if env.get("PGSSLMODE") in dsn.TLS_MODES:
        binaries.refuse_without_tls(Path(command[0]))
    process = await asyncio.create_subprocess_exec(
        *dying_with_parent(command, signal.SIGTERM),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
        umask=0o077,
    )
    said = bytearray()
    reader = asyncio.ensure_future(_drain(process, said))
    try:
        async with asyncio.timeout(deadline_s):
            code = await process.wait()
    except TimeoutError:
        raise Transient(
            f"{name} was not done after {deadline_s:.0f} s and was ended. It said last: "
            f"{_text(said)}. Look at the server's load, or raise the deadline."
        ) from None
    finally:
        await asyncio.shield(asyncio.ensure_future(_end(process, reader)))
    if code != 0:
        raise Transient(f"{name} ended with exit status {code}: {_text(said)}")
    if produces is not None and not (produces.is_file() and produces.stat().st_size):
        raise Transient(
            f"{name} ended with exit status 0, but {produces.name} is not there. "
            f"It said: {_text(said)}"
        )


async def _drain(process: asyncio.subprocess.Process, said: bytearray) -> None:
    assert process.stderr is not None  # noqa: S101 - for the type checker; we asked for a pipe
    while chunk := await process.stderr.read(65536):
        said += chunk
        del said[:-_TAIL_BYTES]


async def _end(process: asyncio.subprocess.Process, reader: asyncio.Future[None]) -> None:
    """The whole process group is gone, and its last words are read."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S)
    else:
        # A grandchild may hold the pipe; what the tool itself said is there already.
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reader), 0.5)
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()
    with suppress(TimeoutError):
        await asyncio.wait_for(reader, _GRACE_S)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The tool led its group from the start; the group lives while any member does.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _text(said: bytearray) -> str:
    return said.decode(errors="replace").strip() or "nothing"
