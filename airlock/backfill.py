"""A backfill, batch by batch: each in a transaction of its own, with how far it came.

What was done is written in the transaction that does it, so whoever goes on after a kill begins at
the next key. Which keys there are is read once, at the start: what is written later is the work of
the code that writes it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace

import asyncpg

from airlock import ledger, migration, postgres
from airlock.batch import Backfill
from airlock.errors import Broken, Refused, Transient
from airlock.ledger import BackfillProgress, Direction, Lease
from airlock.migration import Migration
from airlock.postgres import Conn, quote_ident
from airlock.syntax import Statement
from airlock.throttle import TELL_S, Throttle

log = logging.getLogger(__name__)

# Runs what it is given in a transaction that holds the fence, again where a lock was not to be had,
# and commits it together with the SQL that it returns.
Transaction = Callable[[Callable[[], Awaitable[str]]], Awaitable[None]]
# Is told within each transaction what the batch changed, and how many seconds it took.
Observe = Callable[[int, float], Awaitable[None]]
Batches = Callable[[Conn, Statement], AbstractAsyncContextManager[Observe]]

# Keys are text in between, which has to be read as it was written. Rows that a policy hides would
# be left out in silence; this way the server objects.
_SESSION = "SET row_security = off; SET DateStyle = 'ISO'; SET extra_float_digits = 1"


async def check(conn: Conn, migrations: tuple[Migration, ...]) -> None:
    """Raises Refused where row security would hide rows from a backfill of a plan.

    On the clone another role may run it. Tables that the plan makes itself are not there yet.
    """
    for each in migrations:
        for segment in migration.script(each.forward):
            if isinstance(segment, Backfill):
                row = await _row(conn, segment)
                if row is not None and (problem := _hidden(segment, row)):
                    raise Refused(f"{each.file}: {problem}")


async def _row(conn: Conn, segment: Backfill) -> asyncpg.Record | None:
    # A backfill is alone in its file: nothing has set another path before it.
    (oid,) = await postgres.meant(conn, segment.relation)
    return await conn.fetchrow(postgres.query("backfill_column"), oid, segment.header.key)


def _hidden(segment: Backfill, row: asyncpg.Record) -> str:
    """Why rows would be hidden from this role; empty where none are."""
    if not row["has_row_security"]:
        return ""
    return (
        f"row security of {segment.relation} is active for this role, and rows that it does not "
        "see would be left out in silence. Deploy as a role with BYPASSRLS, or take FORCE ROW "
        "LEVEL SECURITY from the table in a deploy before."
    )


def _problems(segment: Backfill, row: asyncpg.Record | None) -> Iterator[str]:
    """Why the rows cannot be walked by that key without missing some, the plainest first."""
    table, key = segment.relation, quote_ident(segment.header.key)
    if row is None or row["relkind"] not in ("r", "p"):
        yield f"there is no table {table}. Mend its name."
        return
    if row["type"] is None:
        yield f"{table} has no column {key}. Mend key= in the header."
        return
    if hidden := _hidden(segment, row):
        yield hidden
    if row["has_children"] and segment.with_children:
        yield f"{table} has children, whose keys are their own. Write a backfill ONLY of each."
    if not row["is_not_null"]:
        yield f"{key} may be NULL, and such rows would be left out. Choose a key that is NOT NULL."
    if not row["is_builtin"]:
        yield f"{key} is of type {row['type']}; expected was a type of PostgreSQL's own."
    if not row["is_led"]:
        yield (
            f"no unique index of {table} begins with {key}, so each batch would read the whole "
            "table. Choose the primary key, or make such an index in a migration before."
        )


@dataclass(slots=True, kw_only=True)
class Walk:
    """One direction of a backfill, from wherever it stands to its end.

    begun: whether it is the going on of one that was cut off, by the ledger.
    record: SQL for the migration's row while it is under way.
    throttle: None where nobody is disturbed, as on the clone.
    """

    conn: Conn
    lease: Lease
    segment: Backfill
    source: str
    version: int
    direction: Direction
    begun: bool
    record: str
    transaction: Transaction
    throttle: Throttle | None = None
    _relation: str = field(default="", init=False)
    _type: str = field(default="", init=False)
    _began: tuple[float, int] = field(default=(0.0, 0), init=False)
    _told_at: float = field(default=0.0, init=False)

    async def run(self, observe: Observe | None = None) -> None:
        """Raises Refused when the rows cannot be walked by the key, before any is changed.

        Broken when a batch failed, Transient when it may go on later. What is committed by then
        stays, and the next runner goes on after it.
        """
        async with postgres.pinned(self.conn):
            row = await _row(self.conn, self.segment)
        if problem := next(_problems(self.segment, row), ""):
            raise Refused(f"{self.source}: {problem}")
        assert row is not None  # noqa: S101 – for the type checker
        self._relation, self._type = row["relation"], row["exact_type"]
        await postgres.stay_connected(self.conn)
        await self.conn.execute(_SESSION)
        progress = await self._begin()
        self._began = (time.monotonic(), progress.walked_rows)
        while not progress.is_done:
            batch = self.segment.header.batch
            size = self.throttle.size(batch) if self.throttle else batch
            began = time.monotonic()
            progress = await self._patiently(progress, size, observe)
            self._tell(progress)
            if self.throttle is not None and not progress.is_done:
                await self.throttle.rest(self.conn, time.monotonic() - began)
        log.info("%s: %s", progress.label, progress.sentence())

    # ------------------------------------------------------------ the start

    async def _begin(self) -> BackfillProgress:
        """Where it stands. The first time it is fixed which keys are meant."""
        found: list[BackfillProgress] = []

        async def body() -> str:
            await self.conn.execute(self.record)
            if self.direction == "forward" and not self.begun:
                await ledger.forget_backfill(self.conn, self.lease, self.version)
            known = await self._known()
            if self.direction not in known:
                upper, expected = await self._upper(known.get("forward"))
                await ledger.begin_backfill(
                    self.conn, self.lease, self.version, self.direction, upper, expected
                )
                known = await self._known()
            found[:] = [known[self.direction]]
            return ""

        await self.transaction(body)
        return found[0]

    async def _known(self) -> dict[Direction, BackfillProgress]:
        rows = await ledger.backfills(self.conn, self.lease.deploy)
        return {row.direction: row for row in rows if row.version == self.version}

    async def _upper(self, forward: BackfillProgress | None) -> tuple[str | None, int]:
        """The last key to do, and about how many rows there are up to it."""
        if self.direction == "reverse" and forward is not None:
            # No further than the forward SQL came: the rows behind are as they were.
            return forward.last_key, forward.walked_rows
        upper = await self.conn.fetchval(
            f"SELECT {self._key}::pg_catalog.text FROM {self._from}"  # noqa: S608 – quoted names
            f" ORDER BY {self._key} DESC LIMIT 1"
        )
        plan = await self.conn.fetchval(f"EXPLAIN (FORMAT JSON) SELECT FROM {self._from}")
        return upper, int(json.loads(plan)[0]["Plan"]["Plan Rows"])

    @property
    def _key(self) -> str:
        return f"t.{quote_ident(self.segment.header.key)}"

    def _value(self, parameter: str) -> str:
        return f"({parameter}::pg_catalog.text)::{self._type}"

    @property
    def _from(self) -> str:
        only = "" if self.segment.with_children else "ONLY "
        return f"{only}{self._relation} AS t"

    # ------------------------------------------------------------ a batch

    async def _patiently(
        self, progress: BackfillProgress, size: int, observe: Observe | None
    ) -> BackfillProgress:
        """One batch. A client that keeps a row for long is waited for: nobody waits behind us."""
        patience_s = self.throttle.limits.max_wait_s if self.throttle else 0.0
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await self._batch(progress, size, observe)
            except Transient as error:
                locked = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
                if not isinstance(error.__cause__, locked) or time.monotonic() >= deadline:
                    raise
                log.info("%s: a batch is tried again: %s", progress.label, error)
                size = max(size // 2, 1)

    async def _batch(
        self, progress: BackfillProgress, size: int, observe: Observe | None
    ) -> BackfillProgress:
        after: list[BackfillProgress] = []

        async def body() -> str:
            began = time.monotonic()
            sql = self.segment.ranged(self._type, first=progress.last_key is None)
            with self._failing():
                boundary = await self._boundary(progress, size)
                upto = progress.upper_key if boundary is None else boundary
                async with postgres.unpinned(self.conn):
                    tag = await self.conn.execute(sql, *_keys(upto, progress.last_key))
            rows = int(tag.rsplit(" ", 1)[-1])
            if observe is not None:
                await observe(rows, time.monotonic() - began)
            done = replace(
                progress,
                last_key=upto,
                changed_rows=progress.changed_rows + rows,
                walked_rows=progress.walked_rows + (rows if boundary is None else size),
                batches=progress.batches + 1,
            )
            after[:] = [done]
            # On the way back what the table has is kept before.
            return ledger.untouched(*ledger.KEPT) + ledger.batch_record(self.lease, done)

        await self.transaction(body)
        return after[0]

    async def _boundary(self, progress: BackfillProgress, size: int) -> str | None:
        """The key of the last row of a batch; None when fewer are left."""
        above = "" if progress.last_key is None else f" AND {self._key} > {self._value('$2')}"
        return await self.conn.fetchval(
            f"SELECT {self._key}::pg_catalog.text FROM {self._from}"  # noqa: S608 – quoted names
            f" WHERE {self._key} <= {self._value('$1')}{above}"
            f" ORDER BY {self._key} OFFSET {size - 1:d} LIMIT 1",
            *_keys(progress.upper_key, progress.last_key),
        )

    @contextmanager
    def _failing(self) -> Generator[None]:
        try:
            yield
        except asyncpg.PostgresError as error:
            if postgres.is_transient(error):
                raise
            statement = self.segment.statement
            where = f"{self.source}, line {statement.line}: {statement.summary}"
            raise Broken(f"{where} failed: {postgres.wording(error)}") from error

    def _tell(self, progress: BackfillProgress) -> None:
        now = time.monotonic()
        if now - self._told_at < TELL_S:
            return
        self._told_at = now
        since, walked = self._began
        speed = (progress.walked_rows - walked) / max(now - since, 0.001)
        log.info("%s: %s", progress.label, progress.sentence(speed))


def _keys(upto: str | None, above: str | None) -> tuple[str | None, ...]:
    return (upto,) if above is None else (upto, above)
