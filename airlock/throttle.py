"""How hard a backfill works a database that others use.

A batch is as large as fits into the target's time, and followed by a rest. Where standbys fall
behind or clients wait too long, it waits until they do not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from airlock import postgres
from airlock.errors import Transient
from airlock.postgres import Conn
from airlock.settings import BackfillSettings

log = logging.getLogger(__name__)

SMALLEST = 100
LOOK_S = 0.5
TELL_S = 5.0

# The longest wait of a client in these last seconds, in milliseconds; None where nobody measures.
Stall = Callable[[], float | None]


@dataclass(slots=True)
class Lag:
    """How far behind the slowest standby or subscriber is.

    What it says itself stands still when it does, so we keep the time of what we have written, too.
    """

    _written: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _is_told: bool = False

    async def read(self, conn: Conn) -> float:
        """Seconds; 0 where there is none, or none that this role may look at."""
        async with postgres.pinned(conn):
            rows = await conn.fetch(postgres.query("replication"))
        hidden, replayed, written, said_s = rows[0]
        if hidden and not self._is_told:
            self._is_told = True
            log.warning(
                "How far behind %d standbys are is hidden from this role, so nobody waits for "
                "them. As a superuser run: GRANT pg_monitor TO it.",
                hidden,
            )
        if replayed is None:
            return 0.0
        now = time.monotonic()
        self._written.append((now, int(written)))
        while self._written and self._written[0][1] <= replayed:
            self._written.popleft()
        ours_s = now - self._written[0][0] if self._written else 0.0
        return max(ours_s, said_s or 0.0)


@dataclass(slots=True, kw_only=True)
class Throttle:
    """Looks at standbys and clients between two batches.

    insists: whether it goes on when a wait was in vain, as the way back does. What was waited for
        in vain is not waited for again until it has recovered: that may need the way back.
    """

    limits: BackfillSettings
    stall_ms: Stall = lambda: None
    insists: bool = False
    _size: float = field(default=1000.0, init=False)
    _lag: Lag = field(default_factory=Lag, init=False)
    _in_vain: bool = field(default=False, init=False)

    def size(self, batch: int) -> int:
        """How many rows the next batch may walk; ``batch`` at most."""
        self._size = min(self._size, batch)
        return max(round(self._size), 1)

    def shrink(self) -> None:
        """Smaller batches: the last one was in somebody's way."""
        self._size = max(self._size / 2, SMALLEST)

    async def rest(self, conn: Conn, took_s: float) -> None:
        """After a batch. Raises Transient when standbys or clients do not recover in time."""
        # Never by more than twice: a batch may have waited for the disk, or found nothing to do.
        fits = self.limits.batch_ms / 1000 / max(took_s, 0.001)
        self._size = max(self._size * min(max(fits, 0.5), 2), SMALLEST)
        await asyncio.sleep(took_s * self.limits.rest)
        deadline = time.monotonic() + self.limits.max_wait_s
        told_at = 0.0
        while reason := await self._reason(conn):
            if self._in_vain:
                return
            now = time.monotonic()
            if now - told_at >= TELL_S:
                log.info("Waiting: %s", reason)
                told_at = now
            if now >= deadline:
                self._give_up(reason)
                return
            await asyncio.sleep(LOOK_S)
        self._in_vain = False

    async def _reason(self, conn: Conn) -> str:
        """Why the next batch has to wait; empty where it need not."""
        lag_s = await self._lag.read(conn)
        if lag_s > self.limits.max_lag_s:
            return (
                f"a standby or subscriber is {lag_s:.1f} s behind, max_lag_s is "
                f"{self.limits.max_lag_s:g}"
            )
        stall_ms = self.stall_ms()
        if stall_ms is not None and stall_ms > self.limits.max_stall_ms:
            self.shrink()
            return f"a client waited {stall_ms:.0f} ms, max_stall_ms is {self.limits.max_stall_ms}"
        return ""

    def _give_up(self, reason: str) -> None:
        waited = f"after {self.limits.max_wait_s:g} s still {reason}"
        if not self.insists:
            raise Transient(
                f"The backfill waits: {waited}. What is done is kept. Look at the standby and the "
                "load; the next try goes on where this one stopped."
            )
        self._in_vain = True
        log.warning("The way back goes on: %s", waited)
