"""PostgreSQL's programs, run so that none outlives us, hangs for ever, or shows a password."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from airlock.errors import Refused, Transient
from airlock.server import dying_with_parent

log = logging.getLogger(__name__)

DEADLINE_S = 6 * 3600.0
_TAIL_BYTES = 4000
_GRACE_S = 3.0
# https://www.postgresql.org/docs/current/libpq-envars.html
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "database": "PGDATABASE",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_KEPT = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "PGPASSFILE", "PGSSLROOTCERT", "KRB5CCNAME")


def libpq_environment(url: str) -> dict[str, str]:
    """The connection as libpq's environment variables: argv can be read by every user."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or "," in parts.netloc:
        raise Refused(
            f"A database URL begins with {parts.scheme or 'nothing'}://… or names several hosts; "
            "expected postgresql://user@host:port/database. Mend the environment variable."
        )
    values = {
        "PGHOST": unquote(parts.hostname or ""),
        "PGPORT": str(parts.port or ""),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.removeprefix("/")),
    }
    for name, value in parse_qsl(parts.query):
        if name in _VARIABLES:
            values[_VARIABLES[name]] = value
    return {name: value for name, value in values.items() if value}


def environment(url: str | None) -> dict[str, str]:
    """A tool's whole environment: nothing of ours but what it needs."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return (
        {"LC_ALL": "C.UTF-8", "PGAPPNAME": "airlock snapshot"}
        | kept
        | (libpq_environment(url) if url else {})
    )


async def run(
    command: list[str],
    *,
    env: Mapping[str, str],
    produces: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Run one tool to its end.

    produces: a file that must be there, and not be empty, when the tool says it succeeded.
    Raises Transient with the end of what the tool said when it fails or takes too long.
    Whatever happens, neither it nor a child of it is left.
    """
    name = Path(command[0]).name
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
