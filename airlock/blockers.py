"""Who keeps our session waiting: named, and ended where the target's policy says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from airlock import ledger, postgres
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.settings import Budget

log = logging.getLogger(__name__)

# The name of what is done about a blocker, in the journal.
STEP = "blocker"
# How long a session that was told to end is watched, in seconds.
GONE_S = 1.0
_POLL_S = 0.05

_BLOCKERS = postgres.query("blockers")
_BLOCKER = postgres.query("blocker")
# In one look: a process number is soon somebody else's, and who is at work again is spared. Not
# whether it is in the way still: our try may be over by now.
_ENDS: dict[Any, str] = {
    policy: f"SELECT pg_catalog.pg_{policy}_backend(b.pid) FROM ({_BLOCKER}) AS b"  # noqa: S608
    for policy in ("cancel", "terminate")
}

# Server process, its transaction, and since when it is idle where that is what counts.
_Key = tuple[int, str, datetime | None]


@dataclass(slots=True, kw_only=True)
class Blockers:
    """Looks from a second connection at whoever holds what our session waits for.

    pid: our session. source: what it runs, for the journal.
    seen: who it was, in words; never what they run, which may hold data.
    give_way: whether an autovacuum worker was among them, which gives way to who waits for longer
        than deadlock_timeout. deadlock_ms: that setting, once it is known.
    """

    url: str
    pid: int
    lease: Lease
    budget: Budget
    source: str
    seen: str = field(default="", init=False)
    give_way: bool = field(default=False, init=False)
    deadlock_ms: int = field(default=0, init=False)
    _conn: Conn | None = field(default=None, init=False)
    # Who stood in the way in an earlier try, and in this one; and who was told to end.
    _before: set[_Key] = field(default_factory=set[_Key], init=False)
    _now: set[_Key] = field(default_factory=set[_Key], init=False)
    _told: set[_Key] = field(default_factory=set[_Key], init=False)
    # Held while a session is ended: that, and its line in the journal, is not broken off.
    _ending: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    async def __aenter__(self) -> Blockers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def looking(self, *, after_s: float, may_end: bool) -> AsyncGenerator[None]:
        """Look while the block waits, first after so many seconds.

        may_end: whether who is in the way may be ended now, as far as the policy allows.
        """
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        # A timer, since most migrations are done before a task would have begun.
        timer = loop.call_later(
            after_s, lambda: tasks.append(loop.create_task(self._look(after_s, may_end)))
        )
        self._before |= self._now
        self._now.clear()
        try:
            yield
        finally:
            timer.cancel()
            try:
                async with self._ending:
                    pass
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def _look(self, after_s: float, may_end: bool) -> None:
        # To name the blocker is a courtesy; failing at it must not fail the migration.
        try:
            conn = await self._connected()
            while True:
                rows = await conn.fetch(_BLOCKERS, self.pid)
                self._note(rows)
                for row in rows:
                    if may_end and self._is_to_end(row):
                        async with self._ending:
                            await self._end(conn, row)
                await asyncio.sleep(max(after_s, _POLL_S))
        except Exception as error:  # noqa: BLE001 – see above
            log.debug("Nobody looked at who holds the lock: %s", error)

    async def _connected(self) -> Conn:
        if self._conn is None or self._conn.is_closed():
            self._conn = await self._stack.enter_async_context(
                postgres.connect(self.url, purpose="blockers")
            )
            self.deadlock_ms = int(
                await self._conn.fetchval(
                    "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'"
                )
            )
        return self._conn

    def _note(self, rows: Sequence[asyncpg.Record]) -> None:
        if rows:
            self.seen = "; ".join(row["description"] for row in rows)
        self._now |= {self._key(row) for row in rows}
        self.give_way |= any(row["gives_way"] for row in rows)

    def _key(self, row: asyncpg.Record) -> _Key:
        # Who has done something since an earlier try is at work, and will be done by itself.
        idle_since = row["idle_since"] if self.budget.blocker_state != "any" else None
        return row["pid"], row["transaction"], idle_since

    def _is_to_end(self, row: asyncpg.Record) -> bool:
        if self.budget.blockers == "wait" or row["is_ours"] or row["is_wraparound"]:
            return False
        key = self._key(row)
        if key not in self._before or key in self._told:
            return False
        is_meant = row["idle_since"] is not None and not row["is_backup"]
        return is_meant or self.budget.blocker_state == "any"

    async def _end(self, conn: Conn, row: asyncpg.Record) -> None:
        """End one session, or cancel what it runs; both sides of it stand in the journal."""
        policy = self.budget.blockers
        doing = f"{policy} {row['description']}, which holds up {self.source}"
        self._told.add(self._key(row))  # once
        if await ledger.fence(conn, self.lease.deploy) != self.lease.fence:
            return  # the deploy is somebody else's
        await ledger.event(conn, self.lease, STEP, "intent", doing)
        try:
            told = await conn.fetchval(_ENDS[policy], *self._key(row))
        except asyncpg.InsufficientPrivilegeError as error:
            remedy = "GRANT pg_signal_backend to the production role, or end it by hand"
            came = f"not allowed to {doing}: {postgres.wording(error)} {remedy}; we wait."
        else:
            came = f"{doing}: {await self._outcome(conn, row) if told else 'it was gone before'}"
        await ledger.event(conn, self.lease, STEP, "done", came)
        log.warning("Blocker: %s", came)

    async def _outcome(self, conn: Conn, row: asyncpg.Record) -> str:
        deadline = time.monotonic() + GONE_S
        while await conn.fetchval(_BLOCKER, *self._key(row)):
            if time.monotonic() >= deadline:
                return f"it was told to, and is there after {GONE_S:g} s"
            await asyncio.sleep(_POLL_S)
        return "its transaction has ended"
