"""Who else works on the relations of a plan, looked for before production is touched.

A long transaction is named, and the tries of the apply deal with it. A dump, or a vacuum against
wraparound, gives way to nobody for minutes: nothing is begun under it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airlock import ledger, postgres
from airlock.effects import LockMode
from airlock.errors import Transient
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.rehearsal import RehearsedMigration
from airlock.settings import Budget

log = logging.getLogger(__name__)

STEP = "lookout"
# From when on a transaction is named: one that holds such a lock, and one that may come to.
LONG_S = 5.0
OLD_S = 60.0

# The first mode with which each one conflicts; it conflicts with all that are stronger as well.
# https://www.postgresql.org/docs/current/explicit-locking.html#TABLE-LOCK-COMPATIBILITY
_FIRST = {
    LockMode.ACCESS_SHARE: LockMode.ACCESS_EXCLUSIVE,
    LockMode.ROW_SHARE: LockMode.EXCLUSIVE,
    LockMode.ROW_EXCLUSIVE: LockMode.SHARE,
    LockMode.SHARE_UPDATE_EXCLUSIVE: LockMode.SHARE_UPDATE_EXCLUSIVE,
    LockMode.SHARE: LockMode.ROW_EXCLUSIVE,
    LockMode.SHARE_ROW_EXCLUSIVE: LockMode.ROW_EXCLUSIVE,
    LockMode.EXCLUSIVE: LockMode.ROW_SHARE,
    LockMode.ACCESS_EXCLUSIVE: LockMode.ACCESS_SHARE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A session that may keep the plan waiting.

    relation: on which it holds a lock; None: on none of them yet.
    """

    pid: int
    description: str
    relation: str | None
    is_dump: bool
    is_wraparound: bool

    @property
    def sentence(self) -> str:
        if self.relation is None:
            return f"{self.description} is old, and may come to hold what the plan needs"
        what = f"{self.description} holds {self.relation}"
        if self.is_wraparound:
            return f"{what}: a vacuum to prevent wraparound"
        return f"{what}: a dump" if self.is_dump else what


def conflicting(mode: LockMode) -> tuple[LockMode, ...]:
    """The modes that others must not hold when this one is taken."""
    found = [other for other in LockMode if other >= _FIRST[mode]]
    # The one that does not conflict with itself.
    return tuple(o for o in found if (mode, o) != (LockMode.SHARE, LockMode.SHARE))


def wanted(migrations: Iterable[RehearsedMigration]) -> Mapping[str, LockMode]:
    """The relations that the plan locks on the clone, each with its strongest mode."""
    found: dict[str, LockMode] = {}
    for migration in migrations:
        for effect in migration.effects:
            if effect.relation and effect.lock is not None:
                known = found.get(effect.relation, effect.lock)
                found[effect.relation] = max(effect.lock, known)
    # Readers and writers keep a plan waiting that does more than read and write.
    return {name: mode for name, mode in found.items() if mode > LockMode.ROW_EXCLUSIVE}


async def look(conn: Conn, locks: Mapping[str, LockMode]) -> tuple[Neighbour, ...]:
    """Who is there now."""
    pairs = [(name, each.pg_name) for name, mode in locks.items() for each in conflicting(mode)]
    names, modes = [name for name, _ in pairs], [mode for _, mode in pairs]
    rows = await conn.fetch(postgres.query("lookout"), names, modes, LONG_S, OLD_S)
    return tuple(
        Neighbour(
            pid=row["pid"],
            description=row["description"],
            relation=row["relation"],
            is_dump=row["is_dump"],
            is_wraparound=row["is_wraparound"],
        )
        for row in rows
    )


async def before_apply(
    conn: Conn,
    lease: Lease,
    migrations: Sequence[RehearsedMigration],
    *,
    may_stop: bool,
    budget: Budget,
) -> None:
    """Look, name who is there, and wait for dumps and for vacuums against wraparound.

    migrations: those that are still to come.
    Raises Transient where one of these stays for as long as all tries of a transaction may take,
    if the deploy may stop here; where something is touched already, to stop is worse than to try.
    """
    locks = wanted(migrations)
    if not locks:
        return
    deadline = time.monotonic() + budget.tries * (budget.lock_timeout_ms + budget.pause_ms) / 1000
    told: set[tuple[int, str | None]] = set()
    while found := await look(conn, locks):
        if news := [each for each in found if (each.pid, each.relation) not in told]:
            said = "; ".join(each.sentence for each in news)
            await ledger.event(conn, lease, STEP, "done", said)
            log.info("Before the apply: %s", said)
            told |= {(each.pid, each.relation) for each in news}
        if not (staying := _staying(found, locks)):
            return
        if time.monotonic() >= deadline:
            if not may_stop:
                return
            raise Transient(
                f"{lease.target} was not begun: {'; '.join(each.sentence for each in staying)}. "
                "Nothing changed. Wait until that is over (pg_stat_activity), then run: "
                f"airlock deploy {lease.target}"
            )
        await asyncio.sleep(max(budget.pause_ms, 50) / 1000)


def _staying(found: Iterable[Neighbour], locks: Mapping[str, LockMode]) -> list[Neighbour]:
    """Who stays for long, on a relation that a statement of the plan blocks."""
    return [
        each
        for each in found
        if (each.is_dump or each.is_wraparound)
        and each.relation is not None
        and locks[each.relation].blocks_writes
    ]
