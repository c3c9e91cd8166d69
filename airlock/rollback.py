"""Undo exactly what the ledger says a deploy did, newest first, and lose no row.

Rows and values that the reverse SQL would drop are copied to ``airlock.kept`` in the transaction
that drops them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial

from airlock import client, ledger, migration, postgres, sessions
from airlock.apply import Runner
from airlock.batch import Backfill
from airlock.catalogue import Catalogue, diff
from airlock.errors import Stranded
from airlock.introspection import read_catalogue, read_guard
from airlock.ledger import Lease
from airlock.plan import AppliedMigration
from airlock.postgres import Conn, quote_ident
from airlock.rehearsal import Dropped, RehearsedMigration
from airlock.settings import Target
from airlock.throttle import Throttle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What a rollback of the schema did."""

    migrations: tuple[str, ...]  # labels, newest first
    kept_rows: int
    guard: str  # the cheap guard of the schema that is back
    seconds: float


async def reverse_migrations(
    target: Target, lease: Lease, rehearsed: Sequence[RehearsedMigration], expected: Catalogue
) -> Undone:
    """Run the reverse SQL of every migration of this deploy that is still there.

    rehearsed: tells per migration what its reverse drops.
    expected: the catalogue from before the deploy, which must be there again afterwards.
    Raises Stranded when it is not; Transient when a lock was not to be had, or when an earlier
    runner's session does not end.
    """
    began = time.monotonic()
    undone = await _reverse(target, lease, rehearsed)
    async with ledger.connection(target) as conn:
        guard = await read_guard(conn)
        found = await read_catalogue(conn)
        kept = await conn.fetchval(
            "SELECT pg_catalog.count(*) FROM airlock.kept WHERE deploy = $1", lease.deploy
        )
    if found.fingerprint != expected.fingerprint:
        raise Stranded(
            "The reverse SQL ran, and the schema is not what it was before the deploy:\n"
            f"{diff(expected, found).render()}\n"
            f"Look at it, mend it by hand, then run: airlock rollback {target.name}"
        )
    return Undone(migrations=undone, kept_rows=kept, guard=guard, seconds=time.monotonic() - began)


async def reverse_some(
    target: Target, lease: Lease, rehearsed: Sequence[RehearsedMigration], versions: Set[int]
) -> tuple[str, ...]:
    """Run the reverse SQL of those of these migrations that are still there; their labels.

    What they leave is compared with nothing: ``reverse_migrations``, which undoes the rest, does.
    Raises Transient as it does.
    """
    return await _reverse(target, lease, rehearsed, versions)


async def _reverse(
    target: Target,
    lease: Lease,
    rehearsed: Sequence[RehearsedMigration],
    versions: Set[int] | None = None,
) -> tuple[str, ...]:
    """The labels of what was undone, newest first. versions: None means all of the deploy."""
    drops = {step.label: step.drops for step in rehearsed}
    undone: list[str] = []
    async with ledger.connection(target) as conn:
        await sessions.end_earlier(conn, lease)
        rows = await ledger.migrations_of(conn, lease.deploy)
    # One for all: what it waited for in vain, the next migration does not wait for again.
    throttle = Throttle(
        limits=target.backfill,
        stall_ms=partial(client.recent, target, lease.deploy),
        insists=True,
    )
    url, purpose = target.database_url, sessions.rollback_name(lease)
    async with postgres.connect(url, purpose=purpose, pinned=False) as conn:
        for row in reversed([row for row in rows if row.state != "rolled_back"]):
            if versions is None or row.version in versions:
                runner = Runner(
                    url=url, conn=conn, lease=lease, budget=target.budget, throttle=throttle
                )
                keep = Keep(
                    lease=lease,
                    version=row.version,
                    drops=drops.get(row.label, ()),
                    backfills=_backfills(rows),
                )
                await runner.reverse(row, before=keep)
                undone.append(row.label)
    return tuple(undone)


def _backfills(rows: Sequence[AppliedMigration]) -> tuple[tuple[int, Backfill], ...]:
    return tuple(
        (row.version, segment)
        for row in rows
        for segment in migration.script(row.forward)
        if isinstance(segment, Backfill)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Copies what one migration's reverse drops into ``airlock.kept``.

    Called once in each transaction of the reverse: what was written since the one before is copied
    as well, and what is gone by then stays kept.
    backfills: of the same deploy, by version. They would fill the columns again.
    """

    lease: Lease
    version: int
    drops: tuple[Dropped, ...]
    backfills: tuple[tuple[int, Backfill], ...] = ()

    async def __call__(self, conn: Conn) -> None:
        # Rows that a policy hides would be lost in silence; this way the server objects.
        await conn.execute("SET LOCAL row_security = off")
        for item in self.drops:
            relation = quote_ident(item.schema, item.table)
            if await conn.fetchval("SELECT pg_catalog.to_regclass($1) IS NULL", relation):
                continue
            # The reverse needs this lock anyway; taking it first leaves no moment for a write
            # between the copy and the drop, and no upgrade that could deadlock.
            await conn.execute(f"LOCK TABLE ONLY {relation} IN ACCESS EXCLUSIVE MODE")
            place = (self.lease.deploy, self.version, relation)
            statement = await self._statement(conn, item, relation)
            if statement is None:
                continue
            await conn.execute(
                "DELETE FROM airlock.kept WHERE deploy = $1 AND version = $2 AND relation = $3",
                *place,
            )
            status = await conn.execute(statement, *place, await self._made(conn, item, relation))
            log.info("Kept %s rows of %s", status.rsplit(" ", 1)[-1], relation)

    async def _made(self, conn: Conn, item: Dropped, relation: str) -> list[int]:
        """The versions of the backfills that made what is in the columns."""
        makers = [each for each in self.backfills if each[1].makes(item.columns)]
        table, *filled = await postgres.meant(
            conn, relation, *(each.relation for _, each in makers)
        )
        is_part_of = postgres.query("is_part_of")
        return [
            version
            for (version, _), oid in zip(makers, filled, strict=True)
            if await conn.fetchval(is_part_of, table, oid)
        ]

    async def _statement(self, conn: Conn, item: Dropped, relation: str) -> str | None:
        """The copy; None when the columns are gone already."""
        holds_data = "true"
        if item.columns:
            left = await conn.fetch(
                "SELECT attname, atthasdef FROM pg_catalog.pg_attribute WHERE NOT attisdropped"
                " AND attrelid = pg_catalog.to_regclass($1) AND attname = ANY ($2)",
                relation,
                list(item.columns),
            )
            if not left:
                return None
            # Where a column has a default, a NULL was written as well.
            if not any(row["atthasdef"] for row in left):
                columns = ", ".join(f"t.{quote_ident(row['attname'])}" for row in left)
                holds_data = f"pg_catalog.num_nonnulls({columns}) > 0"
        # Both are our own text around quoted identifiers.
        return postgres.query("keep").format(relation=relation, holds_data=holds_data)
