"""What clients feel while a deploy is under way: a probe beside it, and what it saw."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from airlock import ledger, settings
from airlock.client import probe
from airlock.client.felt import Felt, Part, together
from airlock.client.waits import recent
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.service import log as service_log

__all__ = ["Felt", "beside", "command", "read", "recent"]

log = logging.getLogger(__name__)

# How long a probe may take to write down what it saw, and to be gone when it is killed, in seconds.
ENDS_S = 6.0
GONE_S = 5.0


def command(lease: Lease) -> list[str]:
    """The command that starts a probe beside one runner of a deploy. No secret is in it."""
    return [
        # Not the current folder, which may have an "airlock" of its own.
        *(sys.executable, "-P", "-m", "airlock.client"),
        *(lease.target, str(lease.deploy), str(lease.fence)),
    ]


@asynccontextmanager
async def beside(lease: Lease) -> AsyncGenerator[None]:
    """Measures what clients feel while the block runs; afterwards the ledger has it.

    Whatever goes wrong with that fails nothing, and the ledger has that instead. A refresh is not
    measured: the sessions of a probe would be in the way of its swap.
    """
    started = await _start(lease)
    try:
        yield
    finally:
        if started is not None:
            await _end(lease, started)


async def read(conn: Conn, deploy: int) -> Felt | None:
    """What clients felt in a deploy; None where no probe ever ran beside it."""
    return together(await probe.parts(conn, deploy))


async def _start(lease: Lease) -> Process | None:
    try:
        target = settings.target(lease.target)
        async with ledger.connection(target) as conn:
            if (await ledger.deploy(conn, lease.deploy)).kind != "deploy":
                return None
        if not target.probe.enabled:
            off = f"[targets.{target.name}.probe] enabled is false in airlock.toml"
            await _note(lease, off, level=logging.INFO)
            return None
        return await asyncio.create_subprocess_exec(
            *command(lease),
            # It ends when this pipe closes, however this process comes to its end.
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=PIPE,
            # Ctrl-C is for the deploy, whose way back is measured as well.
            start_new_session=True,
        )
    except Exception as error:  # noqa: BLE001 – see beside
        await _note(lease, f"the probe did not start: {str(error) or type(error).__name__}")
        return None


async def _end(lease: Lease, process: Process) -> None:
    try:
        said = await _last_words(process)
        if process.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines()[-1:]
            await _note(lease, f"the probe ended with {process.returncode}: {''.join(lines)}")
    except Exception as error:  # noqa: BLE001 – see beside
        await _note(
            lease, f"how the probe ended is not known: {str(error) or type(error).__name__}"
        )


async def _last_words(process: Process) -> bytes:
    try:
        async with asyncio.timeout(ENDS_S):
            # An input, or it would not be closed.
            return (await process.communicate(b""))[1]
    except TimeoutError:
        process.kill()
        # Who waits for a disk that is gone does not end even so.
        async with asyncio.timeout(GONE_S):
            return (await process.communicate())[1]


async def _note(lease: Lease, why: str, *, level: int = logging.WARNING) -> None:
    """Leave in the ledger why nothing was measured, beside what was measured before."""
    try:
        target = settings.target(lease.target)
        shown = service_log.mask(target, why)
        log.log(level, "What clients of %s feel is not measured: %s", target.name, shown)
        now = datetime.now(UTC)
        async with ledger.connection(target) as conn:
            await probe.add_note(conn, lease, Part(began_at=now, until_at=now, note=shown))
    except Exception as error:  # noqa: BLE001 – see beside
        log.warning("That was not written: %s", type(error).__name__)
