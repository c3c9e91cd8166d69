"""The plan, tried on the restored snapshot: forwards, backwards, and forwards again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from airlock import contents, ledger, postgres, snapshot, traffic
from airlock.apply import Runner
from airlock.catalogue import Catalogue, diff, problems
from airlock.contents import Contents, Table
from airlock.effects import Effect, StatementEffects
from airlock.errors import AirlockError, Broken, Refused, Transient
from airlock.introspection import read_catalogue
from airlock.ledger import Lease
from airlock.measure import Measurement
from airlock.migration import Migration
from airlock.pairing import Cast, Tried, trying
from airlock.plan import AppliedMigration, Plan
from airlock.postgres import Conn, quote_ident
from airlock.settings import Target
from airlock.snapshot import Clone, Snapshot
from airlock.syntax import Statement

log = logging.getLogger(__name__)

Verdict = Literal["exact", "schema only", "lossy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What the reverse SQL of a migration drops: a whole table, or columns of one."""

    schema: str
    table: str
    columns: tuple[str, ...]  # empty: the table itself


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedMigration:
    """One migration as the clone met it.

    waited_ms: the longest wait of light traffic while it was applied again; None without traffic.
    """

    label: str
    seconds: float
    reverse_seconds: float
    statements: tuple[StatementEffects, ...]
    schema_before: str
    schema_after: str
    drops: tuple[Dropped, ...]
    waited_ms: float | None = None

    @property
    def effects(self) -> tuple[Effect, ...]:
        return tuple(effect for each in self.statements for effect in each.effects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What production may expect, measured. Its checksums and fingerprints bind the apply."""

    snapshot: str
    provider: str
    server_version: str
    rehearsed_at: datetime
    seconds: float
    restore_seconds: float
    schema_before: str
    schema_after: str
    checksums: tuple[str, ...]
    migrations: tuple[RehearsedMigration, ...]
    verdict: Verdict
    losses: tuple[str, ...]
    not_compared: tuple[str, ...]
    rows_compared: int
    releases: Tried = field(default_factory=Tried)

    @property
    def rollback_sentence(self) -> str:
        """The verdict in words, for reports and messages."""
        match self.verdict:
            case "exact":
                return f"exact: schema and {self.rows_compared:,} rows came back as they were"
            case "schema only":
                return f"schema only: not compared were {', '.join(self.not_compared)}"
            case "lossy":
                return f"lossy: not restored were {'; '.join(self.losses)}"


async def rehearse(
    target: Target, lease: Lease, plan: Plan, source: Snapshot, cast: Cast
) -> tuple[Rehearsal, Catalogue, Catalogue]:
    """Restore the snapshot, run the plan there and back and there again, and compare.

    cast: the releases that are tried on the clone when the plan itself has stood.
    Returns the rehearsal and the catalogues that production shall have: after the expand, where
    the new release is started, and after all of it.
    Raises Refused when a migration fails, when its rollback does not bring the schema back, or
    when a release does not work on it;
    Broken when the restored snapshot is not what production was. Production is not touched.
    """
    began = time.monotonic()
    async with snapshot.restore(source, target, name=f"rehearsal-{lease.deploy}") as clone:
        stage = _Stage(target=target, lease=lease, plan=plan, source=source, clone=clone, cast=cast)
        try:
            return await stage.play(began)
        except Transient as error:
            # On the clone nobody else holds locks: waiting again would not help.
            raise Refused(f"The rehearsal did not get through: {error}") from error


@dataclass(slots=True, kw_only=True)
class _Stage:
    """One clone, and the plan that is played on it."""

    target: Target
    lease: Lease
    plan: Plan
    source: Snapshot
    clone: Clone
    cast: Cast

    async def play(self, began: float) -> tuple[Rehearsal, Catalogue, Catalogue]:
        before = await self._catalogue()
        self._check_restored(before)
        columns_of = before.columns_of
        columns = {table: columns_of.get(table, ()) for table in before.stores}
        limit = self.target.clone.compare_max_bytes
        rows_before = await self._contents(columns, max_bytes=limit)
        forward = await self._forward(before)
        stages = [before, *(catalogue for _, catalogue in forward)]
        expanded, after = stages[len(self.plan.of_phase("expand"))], stages[-1]
        self._check_sound(before, expanded)
        self._check_sound(before, after)
        reverse_s = await self._reverse(stages)
        # What was read is read again, however large the rollback left it.
        compared = {table: columns[table] for table in rows_before.tables}
        rows_after = await self._contents(compared, max_bytes=2**63)
        losses = await self._losses(rows_before, rows_after, columns)
        touched = [e.relation for step, _ in forward for e in step.effects if e.relation]
        waited = await self._again(after, touched)
        releases = await trying.play(
            self.target, self.clone, self.plan, self.cast, self._undo, deploy=self.lease.deploy
        )
        not_compared = tuple(sorted(quote_ident(*table) for table in rows_before.left_out))
        rehearsal = Rehearsal(
            snapshot=self.source.id,
            provider=self.source.provider,
            server_version=self.clone.server_version,
            rehearsed_at=datetime.now(UTC),
            seconds=time.monotonic() - began,
            restore_seconds=self.clone.seconds,
            schema_before=before.fingerprint,
            schema_after=after.fingerprint,
            checksums=self.plan.checksums,
            migrations=tuple(
                replace(step, reverse_seconds=seconds, waited_ms=waited_ms)
                for (step, _), seconds, waited_ms in zip(forward, reverse_s, waited, strict=True)
            ),
            verdict="lossy" if losses else "schema only" if not_compared else "exact",
            losses=losses,
            not_compared=not_compared,
            rows_compared=rows_before.rows,
            releases=releases,
        )
        log.info("Rehearsed %s: rollback %s", self.plan.versions, rehearsal.rollback_sentence)
        return rehearsal, expanded, after

    async def _catalogue(self) -> Catalogue:
        async with postgres.connect(self.clone.url) as conn:
            return await read_catalogue(conn)

    def _session(self) -> AbstractAsyncContextManager[Conn]:
        # What each statement did is read from the whole catalogue.
        limit_s = postgres.CATALOGUE_S
        return postgres.connect(self.clone.url, purpose="rehearsal", limit_s=limit_s, pinned=False)

    async def _contents(
        self, columns: Mapping[Table, Sequence[str]], *, max_bytes: int
    ) -> Contents:
        url = self.clone.superuser_url or self.clone.url
        async with postgres.connect(url, limit_s=postgres.TABLES_S) as conn:
            return await contents.read_contents(conn, columns, max_bytes=max_bytes)

    def _check_restored(self, before: Catalogue) -> None:
        if before.fingerprint == self.plan.schema_before:
            return
        raise Refused(
            f"The restored snapshot {self.source.id} does not have production's schema: "
            f"fingerprint {before.fingerprint[:12]}, expected {self.plan.schema_before[:12]}. "
            "Either the schema was changed while the snapshot was taken (run the deploy again), or "
            f"the dev server (PostgreSQL {self.clone.server_version}) renders it differently "
            f"(use production's major version there, {self.source.server_version})."
        )

    async def _forward(self, before: Catalogue) -> list[tuple[RehearsedMigration, Catalogue]]:
        steps: list[tuple[RehearsedMigration, Catalogue]] = []
        measured = Measurement(url=self.clone.url)
        for position, each in enumerate(self.plan.migrations, 1):
            latest = steps[-1][1] if steps else before
            steps.append(await self._forward_one(each, position, latest, measured))
        return steps

    async def _forward_one(
        self, each: Migration, position: int, before: Catalogue, measured: Measurement
    ) -> tuple[RehearsedMigration, Catalogue]:
        began = time.monotonic()
        async with self._session() as conn:
            runner = self._runner(conn, measured)
            async with postgres.pinned(conn):
                stored, ours = await _stored(conn), await ledger.state(conn, self.lease.deploy)
            try:
                await runner.forward(each, position=position)
            except Broken as error:
                raise Refused(f"{error} This was on the clone; production is untouched.") from error
            seconds = time.monotonic() - began
            async with postgres.pinned(conn):
                after = await read_catalogue(conn)
                drops = _drops(stored, await _stored(conn))
                await self._check_ledger(each.file, conn, ours)
        step = RehearsedMigration(
            label=each.label,
            seconds=seconds,
            reverse_seconds=0,
            statements=measured.take(),
            schema_before=before.fingerprint,
            schema_after=after.fingerprint,
            drops=drops,
        )
        return step, after

    def _runner(
        self, conn: Conn, measured: Measurement | None = None, *, one_by_one: bool = False
    ) -> Runner:
        return Runner(
            url=self.clone.url,
            conn=conn,
            lease=self.lease,
            budget=self.target.budget,
            execute=measured.execute if measured else _execute if one_by_one else None,
            batches=measured.batches if measured else None,
        )

    def _check_sound(self, before: Catalogue, after: Catalogue) -> None:
        if found := new_problems(before, after):
            raise Refused(
                f"After {self.plan.versions} the clone has: {'; '.join(found)}. Mend the "
                "migration; production is untouched."
            )

    async def _reverse(self, stages: Sequence[Catalogue]) -> list[float]:
        """Undo newest first; the seconds of each, in the plan's order.

        stages: the catalogue before each migration, and after the last one.
        """
        seconds: list[float] = []
        async with self._session() as conn:
            rows = await self._applied(conn)
            for each, should in reversed(list(zip(self.plan.migrations, stages[:-1], strict=True))):
                began = time.monotonic()
                async with postgres.pinned(conn):
                    ours = await ledger.state(conn, self.lease.deploy)
                try:
                    await self._runner(conn, one_by_one=True).reverse(rows[each.version])
                except Broken as error:
                    raise Refused(
                        f"{error} Mend the rollback notes; production is untouched."
                    ) from error
                seconds.append(time.monotonic() - began)
                async with postgres.pinned(conn):
                    await self._check_ledger(f"{each.file}, ROLLBACK NOTES", conn, ours)
                _check_came_back(each, should, await read_catalogue(conn))
        return seconds[::-1]

    async def _check_ledger(self, source: str, conn: Conn, before: Mapping[str, str]) -> None:
        """Raises Refused where a migration has changed what only Airlock writes."""
        after = await ledger.state(conn, self.lease.deploy)
        keys = before.keys() | after.keys()
        if changed := sorted(key for key in keys if before.get(key) != after.get(key)):
            raise Refused(
                f"{source} changes Airlock's ledger on the clone: {', '.join(changed)}. Expected "
                "was that it leaves schema airlock alone, or only reads it. Take out what changes "
                "it, be it in a function or a trigger; production is untouched."
            )

    async def _applied(self, conn: Conn) -> Mapping[int, AppliedMigration]:
        async with postgres.pinned(conn):
            rows = await ledger.migrations_of(conn, self.lease.deploy)
        return {row.version: row for row in rows}

    async def _undo(self, each: Migration) -> None:
        async with self._session() as conn:
            rows = await self._applied(conn)
            await self._runner(conn).reverse(rows[each.version])

    async def _losses(
        self, before: Contents, after: Contents, columns: Mapping[Table, Sequence[str]]
    ) -> tuple[str, ...]:
        changed = [
            table for table in before.tables if before.tables[table] != after.tables.get(table)
        ]
        if not changed:
            return ()
        # Only a lossy rollback pays for a second copy to name its columns.
        name = f"compare-{self.lease.deploy}"
        async with (
            snapshot.restore(self.source, self.target, name=name) as untouched,
            postgres.connect(
                untouched.superuser_url or untouched.url, limit_s=postgres.TABLES_S
            ) as original,
            postgres.connect(
                self.clone.superuser_url or self.clone.url, limit_s=postgres.TABLES_S
            ) as conn,
        ):
            losses: list[str] = []
            for table in sorted(changed):
                lost = before.tables[table].rows - after.tables[table].rows
                names = await contents.changed_columns(original, conn, table, columns[table])
                what = f"{quote_ident(*table)} ({', '.join(names)})"
                losses.append(what + (f", {lost} rows fewer" if lost > 0 else ""))
            return tuple(losses)

    async def _again(self, expected: Catalogue, touched: Sequence[str]) -> list[float | None]:
        """Apply it all once more, with traffic where that is wanted; its longest wait for each."""
        waited: list[float | None] = []
        sessions = self.target.clone.traffic_sessions
        async with (
            self._session() as conn,
            traffic.going(self.clone.url, touched, sessions) as load,
        ):
            for position, each in enumerate(self.plan.migrations, 1):
                if load is not None:
                    load.take()
                try:
                    await self._runner(conn).forward(each, position=position)
                except AirlockError as error:
                    raise Refused(
                        f"After its rollback {each.label} cannot be applied again: {error} "
                        "Mend the rollback notes; production is untouched."
                    ) from error
                waited.append(load.take() if load is not None else None)
            found = await read_catalogue(conn)
        if found.fingerprint != expected.fingerprint:
            raise Refused(
                f"Applied again after their rollback, {self.plan.versions} give another schema:\n"
                f"{diff(expected, found).render()}\n"
                "Mend the rollback notes; production is untouched."
            )
        return waited


async def _execute(conn: Conn, statement: Statement) -> None:
    """By itself, so that it is known which one has done what it may not."""
    await conn.execute(statement.text)
    await postgres.after(conn, statement)


def new_problems(before: Catalogue, after: Catalogue) -> tuple[str, ...]:
    """Unusable indexes and untrusted constraints that were not there before."""
    return tuple(sorted(set(problems(after)) - set(problems(before))))


def _check_came_back(each: Migration, should: Catalogue, found: Catalogue) -> None:
    if found.fingerprint == should.fingerprint:
        return
    raise Refused(
        f"The rollback notes of {each.file} do not bring the schema back. After them the clone "
        f"differs from before:\n{diff(should, found).render()}\n"
        "Mend the ROLLBACK NOTES; production is untouched."
    )


_Stored = Mapping[tuple[int, int], tuple[str, str, str | None]]


async def _stored(conn: Conn) -> _Stored:
    """Schema, table and name of each column that holds data, by the table's OID and its number."""
    rows = await conn.fetch(postgres.query("stored_columns"))
    return {
        (row["oid"], row["number"]): (row["schema"], row["table"], row["column"]) for row in rows
    }


def _drops(before: _Stored, after: _Stored) -> tuple[Dropped, ...]:
    """What exists only since this migration, and so goes with its rollback."""
    old_tables = {oid for oid, _ in before}
    new: dict[tuple[str, str], list[str]] = {}
    for (oid, number), (schema, table, column) in after.items():
        if oid not in old_tables:
            new[schema, table] = []
        elif (oid, number) not in before and column is not None:
            new.setdefault((schema, table), []).append(column)
    return tuple(
        Dropped(schema=schema, table=table, columns=tuple(columns))
        for (schema, table), columns in new.items()
    )
