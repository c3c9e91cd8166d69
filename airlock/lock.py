"""One at a time: the database's one lock, and the heartbeat of whoever works on a deploy.

Both end the block that they guard as soon as another runner has taken over: what it waits for is
cancelled, and the programs that it started are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from airlock import ledger, postgres
from airlock.errors import AirlockError, LeaseLost, Transient
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.scope import Scope
from airlock.settings import Target

log = logging.getLogger(__name__)

# Two keys of one advisory lock: "airl" in ASCII, and the one door of this database.
LOCK = (0x6169726C, 1)
POLL_S = 0.25
HEARTBEAT_S = 5.0
CHECK_S = 10.0
# Somebody may look at a database that was just restarted, and leave again.
REGAIN_S = 10.0


class Held(Transient):
    """Somebody else has the lock, and is at work."""


@asynccontextmanager
async def hold(target: Target, *, wait_s: float = 0, regain: bool = True) -> AsyncGenerator[None]:
    """The database's one lock, on a connection of its own, for as long as the block runs.

    Polled: a blocking wait would deadlock with CREATE INDEX CONCURRENTLY, which waits for
    every older snapshot.
    wait_s: how long to wait for another holder, in seconds.
    regain: take it again when its connection is lost; not where the block replaces the database.
    Raises Held naming the holder when the wait is over; LeaseLost out of the block when the
    lock was lost, and somebody else has it.
    """
    async with AsyncExitStack() as stack:
        lock = _Lock(target)
        stack.push_async_callback(lock.release)
        with postgres.translated(f"waiting for the lock of {target.name}"):
            deadline = time.monotonic() + wait_s
            while (holder := await lock.take()) is not None:
                if time.monotonic() >= deadline:
                    raise Held(_held(target, holder))
                await asyncio.sleep(POLL_S)
        scope = await stack.enter_async_context(Scope())
        if regain:
            stack.push_async_callback(_cancel, asyncio.create_task(lock.keep(scope)))
        yield


async def _cancel(task: asyncio.Task[None]) -> None:
    """End a task. To wait for it like this lets a cancellation of our own through."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("Lock or heartbeat was not looked after to the end: %r", error)


def _held(target: Target, holder: int) -> str:
    who = f" (server process {holder})" if holder else ""
    return (
        f"Another deploy, backup or refresh of {target.name} is running{who}. "
        f"Wait for it, or look at it: airlock status {target.name}"
    )


class _Lock:
    """The lock, and the connection that it goes with."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = AsyncExitStack()
        self._conn: Conn | None = None

    async def take(self) -> int | None:
        """None when it is ours, else the server process that has it; 0 if that was just gone."""
        if self._conn is None:
            self._conn = await self._stack.enter_async_context(
                postgres.connect(self._target.database_url, purpose="lock")
            )
            await postgres.stay_connected(self._conn)
        if await self._conn.fetchval("SELECT pg_catalog.pg_try_advisory_lock($1, $2)", *LOCK):
            return None
        return await self._conn.fetchval(postgres.query("lock_holder"), *LOCK) or 0

    async def release(self) -> None:
        self._conn = None
        await self._stack.aclose()

    async def keep(self, scope: Scope) -> None:
        """Look whether it is still ours, and take it again; ends the scope if others have it."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not await self._is_kept() and (holder := await self._regain()) is not None:
                scope.end(LeaseLost(f"The lock was lost. {_held(self._target, holder)}"))
                return

    async def _is_kept(self) -> bool:
        try:
            assert self._conn is not None  # noqa: S101 – for the type checker
            await self._conn.fetchval("SELECT 1", timeout=CHECK_S)
        except (*postgres.DRIVER_ERRORS, OSError, TimeoutError):
            return False
        return True

    async def _regain(self) -> int | None:
        """None when it is ours again, else who has it. Patient while the server is away."""
        await self.release()
        seen_at: float | None = None
        while True:
            try:
                holder = await self.take()
            except (AirlockError, *postgres.DRIVER_ERRORS, OSError):
                await self.release()
                await asyncio.sleep(1)
                continue
            now = time.monotonic()
            seen_at = seen_at or now
            if holder is None or now - seen_at > REGAIN_S:
                return holder
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def heartbeat(target: Target, lease: Lease) -> AsyncGenerator[None]:
    """Beats in ``airlock.deploy.heartbeat_at`` while the block runs.

    Raises LeaseLost out of the block when another runner has taken the deploy over.
    """
    async with Scope() as scope:
        task = asyncio.create_task(_beat(target, lease, scope))
        try:
            yield
        finally:
            await _cancel(task)


async def _beat(target: Target, lease: Lease, scope: Scope) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        # A missed beat is not a failure: others judge by its age.
        with contextlib.suppress(AirlockError, OSError):
            async with ledger.connection(target) as conn:
                await ledger.beat(conn, lease)
                fence = await ledger.fence(conn, lease.deploy)
            if fence not in (lease.fence, None):
                scope.end(ledger.lost(lease, fence))
                return
