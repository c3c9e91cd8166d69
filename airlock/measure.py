"""What each statement really did, measured on the clone, beside what was predicted there.

From inside the statement's own transaction: the locks it added, the files it replaced, the scans
and the WAL it caused. A statement that runs outside a transaction holds no lock afterwards, so a
second connection polls while it runs. WAL is exact only on a quiet server, as the clone is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Set as AbstractSet
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


_Locks = frozenset[tuple[int, LockMode]]


@dataclass(slots=True, kw_only=True)
class Measurement:
    """Collects the effects of every statement that ``execute`` runs.

    Only relations from before the first statement count: production has no others, so a lock on
    a table that the plan itself creates keeps nobody waiting.
    """

    url: str
    _world: World | None = None
    _known: dict[int, _Relation] | None = None
    # With each how long its locks were held; None: to the end of its transaction.
    _done: list[tuple[StatementEffects, float | None]] = field(
        default_factory=list[tuple[StatementEffects, float | None]]
    )

    async def execute(self, conn: Conn, statement: Statement) -> None:
        """Run one statement and measure it; what ``apply.Runner`` calls on the clone."""
        alone = needs_no_transaction(statement)
        predicted, world = await self._predicted(conn, statement)
        before, held, wal = await self._before(conn), await _locks(conn), await _wal(conn)
        if alone:
            async with self._polling(conn.get_server_pid()) as locks:
                began = time.monotonic()
                status = await conn.execute(statement.text)
                seconds = time.monotonic() - began
        else:
            began = time.monotonic()
            status = await conn.execute(statement.text)
            seconds = time.monotonic() - began
            locks = await _locks(conn)
        effects = StatementEffects(
            line=statement.line,
            statement=statement.summary,
            seconds=seconds,
            wal_bytes=await _wal(conn) - wal,
            rows=_rows(status),
            effects=_effects(before, await _relations(conn), held, locks, seconds, alone=alone),
            predicted=predicted.effects,
            unknown=predicted.unknown,
        )
        world.apply(statement)
        self._done.append((effects, seconds if alone else None))

    @asynccontextmanager
    async def batches(self, conn: Conn, statement: Statement) -> AsyncGenerator[Observe]:
        """Measure a statement that runs in many transactions, in each of which it is told of them.

        All do the same, so locks and scans are those of the first.
        """
        predicted, _ = await self._predicted(conn, statement)
        before, wal, began = await self._before(conn), await _wal(conn), time.monotonic()
        rows, longest_s = 0, 0.0
        effects: tuple[Effect, ...] | None = None

        async def observe(changed: int, seconds: float) -> None:
            nonlocal rows, longest_s, effects
            rows, longest_s = rows + changed, max(longest_s, seconds)
            if effects is None:
                after, locks = await _relations(conn), await _locks(conn)
                effects = _effects(before, after, frozenset(), locks, seconds, alone=False)

        yield observe
        measured = StatementEffects(
            line=statement.line,
            statement=statement.summary,
            seconds=time.monotonic() - began,
            wal_bytes=await _wal(conn) - wal,
            rows=rows,
            effects=effects or (),
            predicted=predicted.effects,
            unknown=predicted.unknown,
        )
        self._done.append((measured, longest_s))

    async def _predicted(self, conn: Conn, statement: Statement) -> tuple[Prediction, World]:
        if self._world is None:
            self._world = await read_world(conn)
        return predict_one(statement, self._world), self._world

    async def _before(self, conn: Conn) -> dict[int, _Relation]:
        before = await _relations(conn)
        self._known = known = before if self._known is None else self._known
        return {oid: relation for oid, relation in before.items() if oid in known}

    @asynccontextmanager
    async def _polling(self, pid: int) -> AsyncGenerator[set[tuple[int, LockMode]]]:
        seen: set[tuple[int, LockMode]] = set()

        async def poll(conn: Conn) -> None:
            while True:
                seen.update(await _locks(conn, pid))
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
        for effects, until in reversed(done):
            # Statements outside transactions lie between them, so they end the earlier one.
            held_s = 0.0 if until is not None else held_s + effects.seconds
            until = held_s if until is None else until  # noqa: PLW2901 – as it is from here on
            taken.append(
                replace(effects, effects=tuple(replace(e, held_s=until) for e in effects.effects))
            )
        return tuple(reversed(taken))


def _rows(status: str) -> int | None:
    """The row count at the end of a command tag such as ``UPDATE 3``."""
    last = status.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else None


def _effects(
    before: Mapping[int, _Relation],
    after: Mapping[int, _Relation],
    held: _Locks,
    locks: AbstractSet[tuple[int, LockMode]],
    seconds: float,
    *,
    alone: bool,
) -> tuple[Effect, ...]:
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
    touched = {oid for oid, _ in locks - held} | rewritten | scanned
    return tuple(
        Effect(
            relation=before[oid].name,
            lock=strongest[oid],
            held_s=seconds,
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
