"""What the adapters share in which something else starts and ends the service.

That something decides the folder itself. ``<state>/<target>/service/current`` is a link to the
release's folder, switched before it is told to start, and back when that fails: use it as
WorkingDirectory, volume or build context, and releases work there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airlock import permissions
from airlock.errors import Broken
from airlock.service import Release, configured, log, probe
from airlock.settings import Target

if TYPE_CHECKING:
    import httpx

COMMAND_S = 120
_POLL_S = 0.05
_GOOD_IN_A_ROW = 3


async def run(
    target: Target,
    argv: Sequence[str],
    *,
    environ: dict[str, str] | None = None,
    directory: Path | None = None,
    timeout_s: float = COMMAND_S,
    may_fail: bool = False,
) -> str:
    """Run one command to its end; its output, secrets masked.

    Output goes through a file: a daemon left behind by the command may keep it open.
    Raises Broken with the output when it fails or does not return in time.
    """
    file = log.private(target.service_dir / "logs") / f"command-{secrets.token_hex(6)}.log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=environ,
            umask=permissions.callers_umask(),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
        ended = await _end_of(process, timeout_s)
        output = log.mask(target, file.read_text(errors="replace")).strip()
    except OSError as error:
        raise Broken(
            f"{argv[0]} cannot be run: {error.strerror}. Mend the service's settings."
        ) from error
    finally:
        os.close(descriptor)
        file.unlink(missing_ok=True)
    if ended != "status 0" and not may_fail:
        raise Broken(
            f"{' '.join(argv)!r} failed: {ended}; expected status 0 within {timeout_s:g} s. "
            f"It wrote:\n{output[-2000:] or '(nothing)'}"
        )
    return output


async def _end_of(process: asyncio.subprocess.Process, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            return f"status {await process.wait()}"
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        return "it did not return"


@asynccontextmanager
async def current(target: Target, release: Release) -> AsyncGenerator[None, None]:
    """``current`` points at the release from here on; after a failure, at what it was before."""
    link = log.private(target.service_dir) / "current"
    before = link.readlink() if link.is_symlink() else None
    _point(link, release.directory)
    try:
        yield
    except BaseException:
        if before is not None:
            _point(link, before)
        raise


def current_directory(target: Target) -> Path:
    """The folder that ``current`` points at; the service's own before the first restart."""
    link = target.service_dir / "current"
    return link.readlink() if link.is_symlink() else configured(target).directory.resolve()


def _point(link: Path, directory: Path) -> None:
    temporary = link.with_name(f".current.{secrets.token_hex(4)}")
    temporary.symlink_to(directory.resolve())
    temporary.replace(link)


async def until_answering(target: Target, http: httpx.AsyncClient, *, token: str | None) -> float:
    """Wait for three good answers in a row on the public address; seconds that took.

    token: an answer that names another instance does not count.
    Raises Broken when ready_s is over.
    """
    service, begun = configured(target), time.monotonic()
    good, last, first_at = 0, "it was never asked", 0.0
    while time.monotonic() - begun < service.ready_s:
        answer = await probe.ask(http, probe.public_url(target), timeout_s=1)
        last = answer.detail
        foreign = token is not None and answer.token not in (None, token)
        if foreign:
            last += f", but from instance {answer.token!r}"
        good = good + 1 if answer.is_good and not foreign else 0
        first_at = time.monotonic() if good == 1 else first_at
        if good == _GOOD_IN_A_ROW:
            return round(first_at - begun, 3)
        await asyncio.sleep(_POLL_S)
    raise Broken(
        f"The service was not ready within {service.ready_s:g} s on "
        f"{probe.shown(probe.public_url(target))}; last answer: {last}."
    )
