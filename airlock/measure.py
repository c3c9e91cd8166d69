"""What each statement really did, measured on the clone, beside what was predicted there.

From inside the statement's own transaction: the locks it added, the files it replaced, the scans
and the WAL it caused. A statement that runs outside a transaction holds no lock afterwards, so a
second connection polls while it runs, and says how long each lock was there. WAL is exact only on a
quiet server, as the clone is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from airlock import postgres
from airlock.backfill import Observe
from airlock.effects import (
    Effect,
    LockMode,
    Prediction,
    StatementEffects,
    World,
    needs_no_transaction,
    predict_one,
)
from airlock.postgres import Conn
from airlock.surroundings import read_world
from airlock.syntax import Statement

POLL_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relation:
    name: str
    filenode: int
    scans: int


_Lock = tuple[int, LockMode]
_Locks = frozenset[_Lock]


@dataclass(slots=True, kw_only=True)
class Measurement:
    """Collects the effects of every statement that ``execute`` runs.

    Only relations from before the first statement count: production has no others, so a lock on
    a table that the plan itself creates keeps nobody waiting.
    """

    url: str
    _world: World | None = None
    _known: dict[int, _Relation] | None = None
    # With each whether it says how long its locks were held; if not, to the end of its transaction.
    _done: list[tuple[StatementEffects, bool]] = field(
        default_factory=list[tuple[StatementEffects, bool]]
    )

    async def execute(self, conn: Conn, statement: Statement) -> None:
        """Run one statement and measure it; what ``apply.Runner`` calls on the clone."""
        alone = needs_no_transaction(statement)
        predicted, world = await self._predicted(conn, statement)
        async with postgres.pinned(conn):
            before, held, wal = await self._before(conn), await _locks(conn), await _wal(conn)
        locks: dict[_Lock, float] = {}
        if alone:
            async with self._polling(conn.get_server_pid()) as seen:
                began = time.monotonic()
                status = await conn.execute(statement.text)
                seconds = time.monotonic() - began
            locks = {k: min(until - since + POLL_S, seconds) for k, (since, until) in seen.items()}
        else:
            began = time.monotonic()
            status = await conn.execute(statement.text)
            seconds = time.monotonic() - began
        await postgres.after(conn, statement)
        async with postgres.pinned(conn):
            after, wal = await _relations(conn), await _wal(conn) - wal
            if not alone:
                locks = dict.fromkeys(await _locks(conn), seconds)
        effects = StatementEffects(
            line=statement.line,
            statement=statement.summary,
            seconds=seconds,
            wal_bytes=wal,
            rows=_rows(status),
            effects=_effects(before, after, held, locks, alone=alone),
            predicted=predicted.effects,
            unknown=predicted.unknown,
        )
        world.apply(statement)
        self._done.append((effects, alone))

    @asynccontextmanager
    async def batches(self, conn: Conn, statement: Statement) -> AsyncGenerator[Observe]:
        """Measure a statement that runs in many transactions, in each of which it is told of them.

        All do the same, so locks and scans are those of the first.
        """
        predicted, _ = await self._predicted(conn, statement)
        async with postgres.pinned(conn):
            before, wal = await self._before(conn), await _wal(conn)
        began = time.monotonic()
        rows, longest_s = 0, 0.0
        effects: tuple[Effect, ...] | None = None

        async def observe(changed: int, seconds: float) -> None:
            nonlocal rows, longest_s, effects
            rows, longest_s = rows + changed, max(longest_s, seconds)
            if effects is None:
                after = await _relations(conn)
                locks = dict.fromkeys(await _locks(conn), seconds)
                effects = _effects(before, after, frozenset(), locks, alone=False)

        yield observe
        async with postgres.pinned(conn):
            wal = await _wal(conn) - wal
        measured = StatementEffects(
            line=statement.line,
            statement=statement.summary,
            seconds=time.monotonic() - began,
            wal_bytes=wal,
            rows=rows,
            effects=tuple(replace(each, held_s=longest_s) for each in effects or ()),
            predicted=predicted.effects,
            unknown=predicted.unknown,
        )
        self._done.append((measured, True))

    async def _predicted(self, conn: Conn, statement: Statement) -> tuple[Prediction, World]:
        if self._world is None:
            # Elsewhere: to look at a table takes a lock on it, too.
            async with postgres.connect(self.url, limit_s=postgres.CATALOGUE_S) as beside:
                self._world = await read_world(beside)
        return predict_one(statement, self._world), self._world

    async def _before(self, conn: Conn) -> dict[int, _Relation]:
        before = await _relations(conn)
        self._known = known = before if self._known is None else self._known
        return {oid: relation for oid, relation in before.items() if oid in known}

    @asynccontextmanager
    async def _polling(self, pid: int) -> AsyncGenerator[dict[_Lock, tuple[float, float]]]:
        """Each lock with the moments at which it was seen first and last."""
        seen: dict[_Lock, tuple[float, float]] = {}

        async def poll(conn: Conn) -> None:
            while True:
                locks, now = await _locks(conn, pid), time.monotonic()
                seen.update({lock: (seen.get(lock, (now, now))[0], now) for lock in locks})
                await asyncio.sleep(POLL_S)

        # Connected before the statement begins: a short one would be over by then.
        async with postgres.connect(self.url, purpose="lock poll") as conn:
            task = asyncio.create_task(poll(conn))
            try:
                yield seen
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, *postgres.DRIVER_ERRORS):
                    await task

    def take(self) -> tuple[StatementEffects, ...]:
        """What was measured since the last call, each lock held to the end of its transaction."""
        done, self._done = self._done, []
        taken: list[StatementEffects] = []
        held_s = 0.0
        for effects, alone in reversed(done):
            # Statements outside transactions lie between them, so they end the earlier one.
            held_s = 0.0 if alone else held_s + effects.seconds
            if not alone:
                held = tuple(replace(each, held_s=held_s) for each in effects.effects)
                effects = replace(effects, effects=held)  # noqa: PLW2901 – the same, as it ended
            taken.append(effects)
        return tuple(reversed(taken))


def _rows(status: str) -> int | None:
    """The row count at the end of a command tag such as ``UPDATE 3``."""
    last = status.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else None


def _effects(
    before: Mapping[int, _Relation],
    after: Mapping[int, _Relation],
    held: _Locks,
    locks: Mapping[_Lock, float],
    *,
    alone: bool,
) -> tuple[Effect, ...]:
    """locks: those that the statement held, each with its seconds."""
    strongest: dict[int, LockMode] = {}
    for oid, mode in locks:
        if oid in before:
            strongest[oid] = max(mode, strongest.get(oid, mode))
    for oid in strongest if alone else ():
        # REINDEX CONCURRENTLY takes its last lock on an index that nobody uses any more.
        if oid not in after and before[oid].name in {each.name for each in after.values()}:
            strongest[oid] = min(strongest[oid], LockMode.SHARE_UPDATE_EXCLUSIVE)
    # A rebuilt index may have another OID: what took its name took its place.
    named = {relation.name: relation for relation in after.values()}
    rewritten = {
        oid
        for oid, relation in before.items()
        if (now := after.get(oid) or named.get(relation.name)) is not None
        and now.filenode != relation.filenode
    }
    scanned = {oid for oid in before.keys() & after.keys() if after[oid].scans > before[oid].scans}
    # An earlier statement of the transaction may have taken the lock under which this one works.
    touched = {oid for oid, _ in locks.keys() - held} | rewritten | scanned
    return tuple(
        Effect(
            relation=before[oid].name,
            lock=strongest[oid],
            held_s=max(s for (o, mode), s in locks.items() if o == oid and mode >= strongest[oid]),
            rewrites=oid in rewritten,
            scans=oid in scanned,
        )
        for oid in sorted(touched & strongest.keys(), key=lambda oid: before[oid].name)
    )


async def _relations(conn: Conn) -> dict[int, _Relation]:
    rows = await conn.fetch(postgres.query("relations"))
    return {
        row["oid"]: _Relation(name=row["name"], filenode=row["filenode"], scans=row["scans"])
        for row in rows
    }


async def _locks(conn: Conn, pid: int | None = None) -> _Locks:
    rows = await conn.fetch(postgres.query("locks"), pid)
    return frozenset((row["relation"], LockMode.from_pg_name(row["mode"])) for row in rows)


async def _wal(conn: Conn) -> int:
    return int(
        await conn.fetchval(
            "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')"
        )
    )
