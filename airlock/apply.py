"""Migrations run against a database, forwards and backwards, each with its ledger row.

The same functions serve the clone and production. A transaction carries the ledger's row for what
it did; a statement that cannot run in one is announced before and recorded after, and a crash in
between is repaired by looking at the catalogue.

A migration looks its names up where its role and database say, or where it has SET; our own
statements around it look in pg_catalog only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from airlock import ledger, leftovers, migration, postgres
from airlock.backfill import Batches, Walk
from airlock.batch import Backfill
from airlock.effects import Segment, StatementEffects
from airlock.errors import Broken
from airlock.introspection import for_version
from airlock.ledger import Direction, Lease
from airlock.migration import Migration
from airlock.patience import Patience
from airlock.plan import AppliedMigration
from airlock.postgres import Conn
from airlock.restraint import Restraint, has_own_limit
from airlock.settings import Budget
from airlock.syntax import Statement
from airlock.throttle import Throttle

log = logging.getLogger(__name__)

Execute = Callable[[Conn, Statement], Awaitable[None]]
Before = Callable[[Conn], Awaitable[None]]
Record = Callable[[int], str]

# What a statement of the reverse SQL may answer when the forward SQL got only half-way:
# undefined table, column, object, function, schema; duplicate ones of the same; a partition that
# is attached still.
_HALFWAY = (
    "42P01",
    "42703",
    "42704",
    "42883",
    "3F000",
    "42P07",
    "42701",
    "42710",
    "42723",
    "42P06",
    "42809",
)

# The ledger's row is ours to write, whatever role the file chose for itself.
_OUR_ROLE = "RESET SESSION AUTHORIZATION; RESET ROLE"

# What the driver's reset does, in one message. The role, which RESET ALL leaves alone, is ours
# again since the ledger's row.
_NEW_SESSION = "SELECT pg_catalog.pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Script:
    """One direction of a migration, and how far it came before.

    skip: segments that are done. begun: the one after them may have been run as well.
    halfway: what it undoes was done in part only.
    restraint: what it is held to; None where nothing is known of it, or it is the rehearsal itself.
    """

    source: str
    version: int
    direction: Direction
    segments: tuple[Segment, ...]
    record: Record
    skip: int
    begun: bool
    halfway: bool = False
    before: Before | None = None
    restraint: Restraint | None = None

    @property
    def untouched(self) -> str:
        """SQL that raises where a statement has changed the ledger; ``before`` keeps rows there."""
        return ledger.untouched(*(ledger.KEPT if self.before else ()))

    def was_begun(self, number: int) -> bool:
        return self.halfway or (self.begun and number == self.skip + 1)


@dataclass(slots=True, kw_only=True)
class Runner:
    """How statements are run: on which connection, for which deploy, within which budget.

    execute: runs each statement, where somebody measures them. batches: hears of those of a
        backfill, for the same.
    throttle: of backfills, where others use the database.
    begun: what this deploy did before, by version, where the caller read it for a whole plan; each
        migration's row is read by itself otherwise.
    rehearsed: what the clone saw of each migration, by label; what is known there is the measure
        for what may happen here.
    """

    url: str
    conn: Conn
    lease: Lease
    budget: Budget
    execute: Execute | None = None
    batches: Batches | None = None
    throttle: Throttle | None = None
    begun: Mapping[int, AppliedMigration] | None = None
    rehearsed: Mapping[str, tuple[StatementEffects, ...]] = field(
        default_factory=dict[str, tuple[StatementEffects, ...]]
    )
    _limits: str | None = field(default=None, init=False)
    _patience: Patience | None = field(default=None, init=False)

    async def forward(self, step: Migration, *, position: int) -> None:
        """Apply one migration, or what the ledger says is left of it.

        Raises Transient when a lock was not to be had within the budget (nothing of the open
        transaction stays), Broken when a statement failed.
        """
        segments = migration.script(step.forward)
        row = await self._row(step.version)

        def record(done: int) -> str:
            total = len(segments)
            return ledger.forward_record(
                self.lease, step, position=position, done=done, total=total
            )

        await self._run(
            _Script(
                source=step.file,
                version=step.version,
                direction="forward",
                segments=segments,
                record=record,
                skip=row.segments_done if row is not None and row.state != "rolled_back" else 0,
                begun=row is not None and row.state == "started",
                restraint=self._restraint(step, segments),
            )
        )
        log.info("Applied %s", step.label)

    async def reverse(self, row: AppliedMigration, *, before: Before | None = None) -> None:
        """Undo one migration with the reverse SQL that the ledger kept.

        before: runs first inside each transaction, to keep what would be dropped. What runs
            outside of one drops no rows.
        """
        segments = migration.script(row.reverse)
        source = f"ROLLBACK NOTES of {row.label}"

        def record(done: int) -> str:
            return ledger.reverse_record(self.lease, row, done=done, total=len(segments))

        if row.state == "started":
            with postgres.translated(source):
                await self._sweep_forward(row, source)
        await self._run(
            _Script(
                source=source,
                version=row.version,
                direction="reverse",
                segments=segments,
                record=record,
                skip=row.reverse_segments_done,
                # The ledger does not say that a reverse was begun.
                begun=True,
                halfway=row.state == "started",
                before=before,
            )
        )
        log.info("Rolled back %s", row.label)

    def _restraint(self, step: Migration, segments: tuple[Segment, ...]) -> Restraint | None:
        seen = self.rehearsed.get(step.label)
        return Restraint.of(seen, segments, self.budget) if seen else None

    async def _row(self, version: int) -> AppliedMigration | None:
        if self.begun is not None:
            return self.begun.get(version)
        async with postgres.pinned(self.conn):
            return await ledger.migration_of(self.conn, self.lease.deploy, version)

    async def _run(self, script: _Script) -> None:
        segments = script.segments
        with postgres.translated(script.source):
            await self._set_again(segments[: script.skip])
            for number, segment in enumerate(segments, 1):
                if number <= script.skip:
                    continue
                if isinstance(segment, Backfill):
                    await self._backfill(script, segment, number)
                elif segment.transactional:
                    # What a file SETs for its session must not reach the next one.
                    end = f"COMMIT; {_NEW_SESSION}" if number == len(segments) else "COMMIT"
                    await self._transaction(script, number, end=end)
                else:
                    await self._alone(script, segment.statements[0], number)
            if not segments[-1].transactional:
                await self.conn.execute(_NEW_SESSION)

    async def _set_again(self, done: tuple[Segment, ...]) -> None:
        """What a file SET for its session in segments that are not run again."""
        for segment in done:
            for each in segment.statements:
                name = str(each.node.get("name", "")).lower()
                # The role is ours again at the end of each transaction.
                ours = name in ("role", "session_authorization", "transaction")
                if each.kind == "VariableSetStmt" and not ours and not each.node.get("is_local"):
                    await self.conn.execute(each.text)

    # ------------------------------------------------------------ in a transaction

    async def _transaction(self, script: _Script, number: int, *, end: str) -> None:
        segment = script.segments[number - 1]
        forgiven = _HALFWAY if script.halfway else ()
        guard = unguard = ""
        if script.restraint is not None:
            guard, unguard = script.restraint.around(self.conn, self.lease, segment)
        # A COMMIT has its own time, for what was deferred to it.
        limit_s = 2 * self.budget.statement_timeout_s + postgres.CALL_S
        if has_own_limit(script.segments):
            limit_s = max(limit_s, postgres.TABLES_S)

        async def attempt() -> None:
            with postgres.within(self.conn, limit_s):
                async with self._holding(guard):
                    if script.before is not None:
                        await script.before(self.conn)
                    # What is deferred to the COMMIT has the path of the migration again.
                    close = (
                        f"{script.untouched} {_OUR_ROLE}; {postgres.PIN} {unguard}"
                        f" {script.record(number)}; {postgres.UNPIN} {end}"
                    )
                    opening = postgres.UNPIN
                    *first, last = segment.statements
                    for statement in first:
                        await self._execute(script, statement, opening=opening, forgiven=forgiven)
                        opening = ""
                    await self._execute(
                        script, last, opening=opening, forgiven=forgiven, close=close
                    )

        await self._patiently(script.source, attempt)

    @asynccontextmanager
    async def _holding(self, guard: str = "") -> AsyncGenerator[None]:
        """A transaction within the budget that holds the fence, pinned to our own path.

        The block's last message ends it.

        guard: SQL for its begin.
        Few messages: many small migrations wait for those more than for anything else.
        """
        try:
            limits = await self._transaction_limits()
            if self._lock_ms != self.budget.lock_timeout_ms:
                limits += f"SET LOCAL lock_timeout = {self._lock_ms};"
            await ledger.check_fence(
                self.conn, self.lease, begin=f"BEGIN; {postgres.PIN} {limits}{guard}"
            )
            yield
        except BaseException:
            if not self.conn.is_closed():
                # It fails only where the connection is lost, and then there is nothing to undo.
                with contextlib.suppress(*postgres.DRIVER_ERRORS):
                    await self.conn.execute("ROLLBACK")
            raise

    async def _transaction_limits(self) -> str:
        if self._limits is None:
            lock_ms = self.budget.lock_timeout_ms
            self._limits = postgres.query("transaction_limits").format(
                lock_ms=lock_ms,
                statement_ms=round(self.budget.statement_timeout_s * 1000),
            )
            # An autovacuum worker gives way after deadlock_timeout: a lock_timeout below it never
            # gets past one.
            major = self.conn.get_server_version().major
            self._limits += self._look_after_client(local=True)
            asked = for_version(postgres.query("may_set_deadlock_timeout"), major)
            async with postgres.pinned(self.conn):
                may_set = await self.conn.fetchval(asked)
            if may_set:
                self._limits += f"SET LOCAL deadlock_timeout = {max(lock_ms // 5, 10)};"
        return self._limits

    async def _execute(
        self,
        script: _Script,
        statement: Statement,
        *,
        opening: str = "",
        forgiven: tuple[str, ...] = (),
        close: str = "",
    ) -> None:
        """Run one statement, and what closes its transaction after it.

        opening: SQL that goes before it. forgiven: SQLSTATEs that say that it is not needed.
        Where nothing stands in between, both go in one message: locks are not held for another
        journey to the server.
        """
        together = close if self.execute is None and not forgiven else ""
        inside = self.conn.is_in_transaction()
        began = time.monotonic()
        try:
            if forgiven and inside:
                await self.conn.execute(f"{opening} SAVEPOINT airlock_statement")
                opening = ""
            if inside:
                await self._send(script, statement, opening, together)
            else:
                await self._run_alone(statement)
        except asyncpg.PostgresError as error:
            if postgres.sqlstate(error) in forgiven:
                if inside:
                    await self.conn.execute("ROLLBACK TO SAVEPOINT airlock_statement")
                log.info("%s: %s is not needed: %s", script.source, statement.summary, error)
            # A COMMIT that fails has ended its transaction: a deferred constraint.
            elif postgres.is_transient(error) or (together and not self.conn.is_in_transaction()):
                raise
            else:
                where = f"{script.source}, line {statement.line}: {statement.summary}"
                if together and postgres.sqlstate(error) == ledger.CHANGED:
                    where = f"{script.source}: one of the statements up to {statement.summary}"
                why = f"failed: {postgres.wording(error)}"
                if script.restraint is not None:
                    why = script.restraint.why(statement, error, time.monotonic() - began) or why
                raise Broken(f"{where} {why}") from error
        if close and not together:
            await self.conn.execute(close)

    async def _send(
        self, script: _Script, statement: Statement, opening: str, together: str
    ) -> None:
        """A statement in a transaction.

        Where somebody looks at each, it is known of each whether it has left the ledger alone.
        """
        if self.execute is not None:
            if opening:
                await self.conn.execute(opening)
            await self.execute(self.conn, statement)
            await self.conn.execute(script.untouched)
            return
        limit = script.restraint.limit(statement) if script.restraint else ""
        await self.conn.execute(f"{opening}{limit}{statement.text}\n;{together}")
        await postgres.after(self.conn, statement)

    async def _run_alone(self, statement: Statement) -> None:
        if self.execute is not None:
            await self.execute(self.conn, statement)
            return
        await self.conn.execute(statement.text)
        await postgres.after(self.conn, statement)

    async def _patiently(self, source: str, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until the locks are had; between tries the queue behind us drains."""
        self._patience = Patience(
            url=self.url, conn=self.conn, lease=self.lease, budget=self.budget
        )
        await self._patience.until_had(source, attempt)

    @property
    def _lock_ms(self) -> int:
        return self._patience.lock_ms if self._patience else self.budget.lock_timeout_ms

    # ------------------------------------------------------------ in many transactions

    async def _backfill(self, script: _Script, segment: Backfill, number: int) -> None:
        async def transaction(body: Callable[[], Awaitable[str]]) -> None:
            await self._patiently(script.source, lambda: self._commit(script, body))

        walk = Walk(
            conn=self.conn,
            lease=self.lease,
            segment=segment,
            source=script.source,
            version=script.version,
            direction=script.direction,
            begun=script.begun,
            record=script.record(number - 1),
            transaction=transaction,
            throttle=self.throttle,
        )
        if self.batches is None:
            await walk.run()
        else:
            async with self.batches(self.conn, segment.statement) as observe:
                await walk.run(observe)

        async def done() -> str:
            return script.record(number)

        await transaction(done)

    async def _commit(self, script: _Script, body: Callable[[], Awaitable[str]]) -> None:
        with postgres.within(self.conn, 2 * self.budget.statement_timeout_s + postgres.CALL_S):
            async with self._holding():
                if script.before is not None:
                    await script.before(self.conn)
                record = await body()
                await self.conn.execute(f"{_OUR_ROLE}; {record}; {postgres.UNPIN} COMMIT")

    # ------------------------------------------------------------ outside a transaction

    async def _alone(self, script: _Script, statement: Statement, number: int) -> None:
        async with postgres.pinned(self.conn):
            await ledger.check_fence(self.conn, self.lease)
            await self.conn.execute(script.record(number - 1))
        again = script.was_begun(number)
        with postgres.within(self.conn, self.budget.build_timeout_s + postgres.CALL_S):
            await self._patiently(
                script.source, lambda: self._execute_alone(script, statement, again=again)
            )
        async with postgres.pinned(self.conn):
            await ledger.check_fence(self.conn, self.lease)
            await self.conn.execute(script.record(number))

    async def _execute_alone(self, script: _Script, statement: Statement, *, again: bool) -> None:
        await self._limit_session(statement)
        await self._sweep(script.version, statement)
        if again and await leftovers.is_done(self.conn, statement):
            return
        forgiven = leftovers.done_before(statement) if again else ()
        if script.halfway:
            forgiven += _HALFWAY
        try:
            await self._execute(script, statement, forgiven=forgiven)
        except BaseException:
            if not self.conn.is_closed():
                with contextlib.suppress(*postgres.DRIVER_ERRORS):
                    await self._sweep(script.version, statement)
            raise

    async def _limit_session(self, statement: Statement) -> None:
        # Waiting concurrently blocks nobody, so it is bounded by the build's time alone.
        lock_ms = 0 if _is_concurrent(statement) else self._lock_ms
        timeout_ms = self.budget.build_timeout_s * 1000
        await self.conn.execute(
            f"SET lock_timeout = {lock_ms}; SET statement_timeout = {timeout_ms:.0f};"
            f"{self._look_after_client(local=False)}"
        )

    def _look_after_client(self, *, local: bool) -> str:
        """So that the server ends by itself what a killed client had it do."""
        if self.conn.get_server_version().major < 14:
            return ""
        scope = "LOCAL" if local else "SESSION"
        return f"SET {scope} client_connection_check_interval = '5s';"

    async def _sweep(self, version: int, statement: Statement, *, back: bool = False) -> None:
        await leftovers.sweep(
            self.conn,
            statement,
            deploy=self.lease.deploy,
            version=version,
            lock_ms=self.budget.lock_timeout_ms,
            back=back,
        )

    async def _sweep_forward(self, row: AppliedMigration, source: str) -> None:
        """Remove what the statement left at which the migration was cut off.

        The reverse SQL knows what a whole statement makes, and nothing of half ones.
        """
        segments = migration.script(row.forward)
        if row.segments_done == len(segments):
            return
        cut_off = segments[row.segments_done]
        if cut_off.transactional or isinstance(cut_off, Backfill):
            return
        statement = cut_off.statements[0]
        async with postgres.pinned(self.conn):
            await ledger.check_fence(self.conn, self.lease)
        await self._set_again(segments[: row.segments_done])
        await self._limit_session(statement)
        with postgres.within(self.conn, self.budget.build_timeout_s + postgres.CALL_S):
            await self._patiently(source, lambda: self._sweep(row.version, statement, back=True))
        await self.conn.execute(_NEW_SESSION)


def _is_concurrent(statement: Statement) -> bool:
    return bool(statement.node.get("concurrent")) or statement.kind in (
        "ReindexStmt",
        "AlterTableStmt",
    )
