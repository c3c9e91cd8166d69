"""Tries until the locks are had: short ones, so that the queue behind us drains in between."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg

from airlock import postgres
from airlock.blockers import Blockers
from airlock.errors import Transient
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.settings import Budget

log = logging.getLogger(__name__)

# The try from which on who stands in the way may be ended, where the target's policy says so.
ENDING_TRY = 3
# An autovacuum worker gives way to who waits for longer than deadlock_timeout. Where we may not
# lower that, so many tries wait for so much longer than it: beyond so many ms nobody else is kept
# waiting for that.
LONG_TRIES = 2
BEYOND_MS = 200
LONGEST_MS = 2000


@dataclass(slots=True, kw_only=True)
class Patience:
    """How often and how long one connection waits for its locks.

    lock_ms: the lock_timeout of this try.
    """

    url: str
    conn: Conn
    lease: Lease
    budget: Budget
    lock_ms: int = field(init=False)
    _long_tries: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.lock_ms = self.budget.lock_timeout_ms

    async def until_had(self, source: str, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until the attempt has its locks.

        Raises Transient naming who holds them when the tries are used up; other errors of the
        driver as ours.
        """
        budget = self.budget
        watch = Blockers(
            url=self.url,
            pid=self.conn.get_server_pid(),
            lease=self.lease,
            budget=budget,
            source=source,
        )
        async with watch:
            for number in range(1, budget.tries + 1):
                may_end = number >= min(ENDING_TRY, budget.tries)
                try:
                    after_s = budget.lock_timeout_ms / 2000
                    async with watch.looking(after_s=after_s, may_end=may_end):
                        await attempt()
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                    if number == budget.tries:
                        raise self._given_up(source, watch) from error
                    log.info("%s: try %d waits for %s", source, number, _named(watch))
                    self._be_longer_than_autovacuum(watch)
                    # Jitter, so that two waiters do not meet again and again.
                    pause_s = budget.pause_ms / 1000 * random.uniform(0.5, 1.5)  # noqa: S311
                    await asyncio.sleep(pause_s)
                except (*postgres.DRIVER_ERRORS, OSError) as error:
                    raise postgres.translate(error, source) from error
                else:
                    return

    def _be_longer_than_autovacuum(self, watch: Blockers) -> None:
        long_ms = watch.deadlock_ms + BEYOND_MS
        wanted = watch.give_way and self.budget.lock_timeout_ms <= watch.deadlock_ms
        watch.give_way = False
        self.lock_ms = self.budget.lock_timeout_ms
        if wanted and self._long_tries < LONG_TRIES and long_ms <= LONGEST_MS:
            self._long_tries += 1
            self.lock_ms = long_ms
            log.info("The next try waits for %d ms: autovacuum gives way only then", long_ms)

    def _given_up(self, source: str, watch: Blockers) -> Transient:
        budget = self.budget
        return Transient(
            f"{source}: the lock was not to be had in {budget.tries} tries of "
            f"{budget.lock_timeout_ms} ms; held by {_named(watch)}. Nothing changed. End that "
            "session or wait for it, then run the deploy again."
        )


def _named(watch: Blockers) -> str:
    return watch.seen or "somebody who was gone when we looked"
