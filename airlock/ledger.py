"""The ledger: Airlock's tables in the target database, the only truth about what was done.

Intent is written before each action and the result after it. Every write of a runner names its
fence; a runner whose deploy was taken over can write nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import asyncpg

from airlock import holder, postgres, record, settings
from airlock.aftermath import Aftermath
from airlock.catalogue import Catalogue
from airlock.errors import AirlockError, LeaseLost, Refused, Transient, Unreadable
from airlock.migration import Migration, label
from airlock.plan import AppliedMigration, Plan
from airlock.postgres import Conn, quote_ident
from airlock.replacement import Replacement
from airlock.request import DeployRequest, RefreshRequest
from airlock.service import Instance, Restart, log
from airlock.settings import Target
from airlock.timeline import UNDOES, StepTime

VERSION = 3
# Since which there is a delivery for each alert and channel.
WITH_DELIVERIES = 2
# Since which a deploy knows its run.
WITH_RUNS = 2
# An open deploy without a beat for so long has lost its runner.
SILENT_S = 30.0
# The journal's line where a person took a deploy up again in order to undo it.
REOPENED = "reopen"
# That a person asked the run to end.
CANCELLED = "cancel"
# And where its runner had left it open, without an outcome that anybody was told.
CUT_OFF = "cut_off"
# And where a run of Prefect opened it.
OPENED = "opened_by_run"
# The SQLSTATE of a statement of somebody else's that has changed the ledger.
CHANGED = "AL001"
# Where rows are kept, and their numbers.
KEPT = ("kept", "kept_id_seq")
# How long an upgrade of the ledger's tables waits for whoever has them.
UPGRADE_LOCK_MS = 5000

State = Literal[
    "planned",
    "snapshotted",
    "rehearsed",
    "approved",
    "applying",
    "applied",
    "verified",
    "restarted",
    "healthy",
    "contracting",
    "contracted",
    "succeeded",
    "failed",
    "rolling_back",
    "rolled_back",
    "stranded",
]
Kind = Literal["deploy", "refresh"]
FINISHED: tuple[State, ...] = ("succeeded", "failed", "rolled_back")
UNTOUCHED: tuple[State, ...] = ("planned", "snapshotted", "rehearsed", "approved")
# From the contract on, what was verified and watched before it says nothing new.
CONTRACT: tuple[State, ...] = ("contracting", "contracted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on one deploy, until somebody draws a higher fence."""

    target: str
    deploy: int
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """One row of ``airlock.deploy``. The jsonb columns are text, read by whoever wrote them.

    silent_s: since the runner's last sign of life, by the database's clock: its heartbeat, or a
        session of its that is changing production.
    runner_gone: whether its process has certainly ended; False where nobody can tell from here.
    """

    id: int
    target: str
    requester: str
    reason: str
    request: str
    state: State
    plan: str | None
    schema_before: str | None
    schema_expected: str | None
    schema_after: str | None
    guard_after: str | None
    snapshot: str | None
    rehearsal: str | None
    release: str | None
    previous: str | None
    restart: str | None
    health: str | None
    holder: str
    fence: int
    heartbeat_at: datetime
    created_at: datetime
    finished_at: datetime | None
    failed_step: str | None
    failure: str | None
    kind: Kind = "deploy"
    flow_run: str | None = None
    run_url: str | None = None
    approval: str | None = None
    refresh: str | None = None
    aftermath: str | None = None
    # No fact about the deploy: who reads it twice compares the rest.
    silent_s: float = field(default=0.0, compare=False)
    runner_gone: bool = field(default=False, compare=False)

    @property
    def planned(self) -> Plan:
        """The plan. Raises Unreadable for a row without one."""
        if self.plan is None:
            raise Unreadable(f"The ledger has no plan of deploy {self.id}")
        return record.load(Plan, self.plan)

    @property
    def replacement(self) -> Replacement:
        """What a refresh builds and replaces. Raises Refused for another row."""
        if self.refresh is None:
            raise Refused(f"Deploy {self.id} is no refresh.")
        return record.load(Replacement, self.refresh)

    @property
    def after(self) -> Aftermath:
        """How the target was after the way back; empty where nobody took it."""
        return record.load(Aftermath, self.aftermath) if self.aftermath else Aftermath()

    @property
    def last_restart(self) -> Restart | None:
        """The one that left the instance which serves, as far as this deploy knows."""
        forward = record.load(Restart, self.restart) if self.restart else None
        return self.after.restart or forward

    @property
    def is_open(self) -> bool:
        return self.state not in FINISHED

    @property
    def is_asked(self) -> bool:
        """Whether it waits for a person's approval, and somebody is there to go on."""
        return self.state == "rehearsed" and self.approval is not None and not self.is_cut_off

    @property
    def is_cut_off(self) -> bool:
        """Whether it is open and nobody works on it."""
        is_left = self.silent_s > SILENT_S or self.runner_gone
        return self.is_open and self.state != "stranded" and is_left

    @property
    def headline(self) -> str:
        """The outcome in one line, for alerts, tables and the head of the report."""
        match self.state:
            case _ if self.is_cut_off:
                return f"CUT OFF – {self.state}, and its runner is gone ({self.target})"
            case "rolling_back":
                why = f"{self.failed_step} failed" if self.failed_step else "deploy given up"
                return f"ROLLING BACK – {why} ({self.target})"
            case "rolled_back":
                return f"ROLLED BACK – {self._back} ({self.target})"
            case "stranded":
                now = self.after.service or "a person is needed now"
                return f"ROLLBACK FAILED – {now} ({self.target})"
            case _:
                is_refresh = self.kind == "refresh"
                return self._refresh_headline if is_refresh else self._deploy_headline

    @property
    def _back(self) -> str:
        """What is there again after a rollback, and how the service is with it."""
        if self.kind == "refresh":
            before, back = "its own database", "its own database is back"
        else:
            before = self.planned.head or "an empty schema"
            back = f"schema back on {before}"
        health = self.after.health
        if health and health.is_healthy:
            return f"service healthy on {before}"
        return f"{back}, service not certainly healthy" if health else back

    @property
    def _deploy_headline(self) -> str:
        versions, before = self.planned.versions, self.planned.head or "an empty schema"
        match self.state:
            case "succeeded":
                stands = versions if self.planned.migrations else before
                return f"DEPLOYED – {self.target} stands at {stands}"
            case "failed" if self.failure is None:
                return f"REHEARSED – {self.target} was not touched: dry run of {versions}"
            case "failed":
                return f"REFUSED – {self.target} was not touched, still on {before}"
            case _:
                if self.is_asked:
                    return f"APPROVAL WANTED – {self.target} {versions} waits for a person"
                return f"IN PROGRESS – {self.target}, {versions}: {self.state}"

    @property
    def _refresh_headline(self) -> str:
        match self.state:
            case "succeeded":
                return f"REFRESHED – {self.target} is a masked copy of {self.replacement.origin}"
            case "failed":
                return f"REFRESH FAILED – {self.target} was not touched"
            case _:
                source = self.replacement.source
                return f"IN PROGRESS – {self.target}, masked copy of {source}: {self.state}"

    @property
    def next_command(self) -> str:
        """What somebody who reads the headline should type."""
        look = f"airlock status {self.target}"
        if self.is_cut_off:
            return f"airlock recover {self.target}"
        match self.state:
            case "failed" | "rolled_back" if self.kind == "refresh":
                return f"mend the cause, airlock refresh {self.target}"
            case "rehearsed" if self.is_asked:
                answer = f"airlock approve {self.target}, or airlock reject {self.target}"
                return f"airlock report {self.target}, then {answer}"
            case "stranded":
                return f"{look}, mend what it names, airlock rollback {self.target}"
            case "failed" | "rolled_back":
                plan_again = f"airlock plan {self.target}, airlock deploy {self.target}"
                return f"mend the cause, {plan_again}"
            case _:
                return look


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a deploy's journal."""

    at: datetime
    step: str
    phase: Literal["intent", "done", "failed"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one deploy went, in short.

    failed_at: when it was seen to fail, or a person asked for its undo.
    """

    id: int
    state: State
    created_at: datetime
    finished_at: datetime | None
    commit: str | None
    committed_at: datetime | None
    failed_at: datetime | None


@asynccontextmanager
async def connection(target: Target) -> AsyncGenerator[Conn]:
    """A connection to the target as the production role."""
    async with postgres.connect(target.database_url, purpose="ledger") as conn:
        try:
            yield conn
        # Not OSError: steps run in this block, and a missing program is not the ledger's.
        except postgres.DRIVER_ERRORS as error:
            raise postgres.translate(error, f"the ledger of {target.name}") from error


# ---------------------------------------------------------------- its own tables


async def exists(conn: Conn) -> bool:
    """Whether there is a ledger. Raises Unreadable where it is there without its deploys."""
    row = await conn.fetchrow(postgres.query("ledger_exists"))
    assert row is not None  # noqa: S101 – for the type checker
    if row["has_others"] and not row["has_deploys"]:
        raise Unreadable("The ledger has no table airlock.deploy any more")
    return row["has_deploys"]


async def version(conn: Conn) -> int:
    """The version of the ledger's tables; 0 where there are none."""
    if not await exists(conn):
        return 0
    found = await conn.fetchval("SELECT pg_catalog.max(version) FROM airlock.ledger")
    if found is None:
        raise Unreadable("The ledger does not say its version: airlock.ledger is empty")
    return int(found)


async def ensure(conn: Conn) -> None:
    """Create or upgrade the ledger's tables; nothing when they are current.

    Raises Transient where somebody, such as a dump, keeps them from being changed.
    """
    found = await version(conn)
    if found == VERSION:
        return
    if found > VERSION:
        raise Refused(
            f"The ledger is of version {found}; this Airlock writes version {VERSION}. "
            "Use the Airlock that upgraded it, or a newer one."
        )
    try:
        async with conn.transaction():
            # Whoever reads the ledger waits behind an upgrade that waits.
            await conn.execute(f"SET LOCAL lock_timeout = {UPGRADE_LOCK_MS}")
            for number in range(found + 1, VERSION + 1):
                await conn.execute(postgres.query(f"ledger_{number}"))
    except asyncpg.InsufficientPrivilegeError as error:
        name = await conn.fetchrow(
            "SELECT pg_catalog.current_database() AS db, current_user AS role"
        )
        database, role = (name["db"], name["role"]) if name else ("?", "?")
        raise Refused(
            f"The ledger cannot be created: {error}. As the database's owner run: "
            f"GRANT CREATE ON DATABASE {quote_ident(database)} TO {quote_ident(role)};"
        ) from error
    except asyncpg.LockNotAvailableError as error:
        raise Transient(
            f"The ledger of version {found} could not be upgraded: somebody else had its tables, "
            f"as a dump has, for {UPGRADE_LOCK_MS / 1000:g} s. Nothing changed. Wait until that is "
            "over (pg_stat_activity), then run the same command again."
        ) from error
    except (
        asyncpg.DuplicateSchemaError,
        asyncpg.DuplicateColumnError,
        asyncpg.DuplicateTableError,
        asyncpg.UniqueViolationError,
    ):
        # Another runner created it in this very moment.
        await conn.execute("SELECT 1 FROM airlock.deploy LIMIT 0")


def untouched(*ours: str) -> str:
    """SQL that raises where others' statements in this transaction have changed the ledger.

    ours: the tables that we have written in it.
    """
    return postgres.query("ledger_untouched").format(ours=",".join(ours), state=CHANGED)


async def state(conn: Conn, number: int) -> dict[str, str]:
    """What schema airlock consists of, each part with a text that differs after a change.

    number: the deploy that is under way, whose own rows about its migrations are left out.
    """
    found: dict[str, str] = {}
    for row in await conn.fetch(postgres.query("ledger_definition")):
        found[row["name"]] = found.get(row["name"], "") + row["definition"]
    tables = await conn.fetch(postgres.query("ledger_tables"))
    counts = " UNION ALL ".join(_rows_of(row["name"], row["kind"], number) for row in tables)
    found |= {f"rows of {name}": rows for name, rows in await conn.fetch(counts)} if counts else {}
    return found


_UNDER_WAY = (
    "airlock.migration",
    "airlock.event",
    "airlock.backfill",
    "airlock.backfill_batch",
)


def _rows_of(name: str, kind: str, number: int) -> str:
    """SQL for what a table of ours holds, by the transactions that wrote its rows."""
    if kind == "S":
        return f"SELECT '{name}', pg_catalog.concat(s.last_value, s.is_called) FROM {name} AS s"  # noqa: S608 – quoted
    others = f" WHERE t.deploy <> {number:d}" if name in _UNDER_WAY else ""
    return (
        f"SELECT '{name}', pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum("  # noqa: S608 – quoted
        "pg_catalog.hashtextextended(t.xmin::pg_catalog.text, 0)::numeric))"
        f" FROM {name} AS t{others}"
    )


# ---------------------------------------------------------------- one at a time


async def beat(conn: Conn, lease: Lease) -> None:
    """Write that somebody works on the deploy, unless another runner does by now."""
    await conn.execute(postgres.query("heartbeat"), lease.deploy, lease.fence)


async def fence(conn: Conn, number: int) -> int | None:
    """The fence of a deploy: whose number is lower may do nothing more."""
    return await conn.fetchval("SELECT fence FROM airlock.deploy WHERE id = $1", number)


def lost(lease: Lease, fence: int | None) -> LeaseLost:
    """The error of a runner whose deploy has another fence by now."""
    return LeaseLost(
        f"Deploy {lease.deploy} was taken over: fence {lease.fence} became {fence}. "
        f"This runner stops. See: airlock status {lease.target}"
    )


# ---------------------------------------------------------------- the deploy row


async def begin(
    conn: Conn, request: DeployRequest | RefreshRequest, plan: Plan, *, flow_run: str | None = None
) -> Lease:
    """Open a deploy or a refresh, for a run of Prefect. Raises Refused when another one is open."""
    try:
        rows = await conn.fetch(
            postgres.query("deploy_begin"),
            request.target,
            record.storable(request.requester),
            record.storable(request.reason),
            record.dump(request),
            record.dump(plan),
            plan.schema_before,
            holder.name(),
            "refresh" if isinstance(request, RefreshRequest) else "deploy",
            flow_run,
            OPENED,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "deploy_open":
            raise
        raise Refused(
            f"Another deploy of {request.target} is open. Look at it: airlock status "
            f"{request.target}"
        ) from error
    return Lease(target=request.target, deploy=rows[0]["id"], fence=rows[0]["fence"])


async def begun(conn: Conn, request: DeployRequest | RefreshRequest) -> Lease | None:
    """The lease that an earlier try of this very process opened without hearing of it."""
    newest = await last(conn)
    if newest is None or (newest.state, newest.holder) != ("planned", holder.name()):
        return None
    if record.load(dict[str, Any], newest.request) != request.model_dump(mode="json"):
        return None
    return Lease(target=request.target, deploy=newest.id, fence=newest.fence)


async def take_over(conn: Conn, deploy: Deploy, *, flow_run: str | None = None) -> Lease:
    """A new lease on an existing deploy; whoever held it before can write nothing more.

    flow_run: the run of Prefect that works on it from now on.
    """
    fence = await conn.fetchval(
        "UPDATE airlock.deploy"
        " SET fence = GREATEST(pg_catalog.nextval('airlock.fence'), fence + 1), holder = $2,"
        " heartbeat_at = pg_catalog.clock_timestamp(), flow_run = coalesce($3, flow_run)"
        " WHERE id = $1 RETURNING fence",
        deploy.id,
        holder.name(),
        flow_run,
    )
    return Lease(target=deploy.target, deploy=deploy.id, fence=fence)


async def check_fence(conn: Conn, lease: Lease, *, begin: str = "") -> None:
    """Lock the deploy row and make sure that it is still ours.

    In a migration's transaction this holds until COMMIT: a runner that took over waits for us
    or we fail here, never both at once. NO KEY UPDATE leaves foreign keys to the row free.
    begin: statements that go in front, in the same message.
    """
    # The tag of the last statement counts its rows.
    tag = await conn.execute(
        f"{begin} SELECT FROM airlock.deploy"
        f" WHERE id = {lease.deploy:d} AND fence = {lease.fence:d} FOR NO KEY UPDATE"
    )
    if tag != "SELECT 1":
        raise lost(lease, await fence(conn, lease.deploy))


async def advance(conn: Conn, lease: Lease, state: State, **columns: str | None) -> None:
    """Set the deploy's state, and jsonb or text columns with it."""
    if failure := columns.get("failure"):
        columns["failure"] = _showable(lease, failure)
    await _update(conn, lease, {"state": state, **columns}, finished=state in FINISHED)


async def note(conn: Conn, lease: Lease, **columns: str | None) -> None:
    """Set columns of the deploy and leave its state alone."""
    await _update(conn, lease, columns, finished=None)


async def _update(
    conn: Conn, lease: Lease, columns: Mapping[str, str | None], *, finished: bool | None
) -> None:
    assignments = [f"{quote_ident(name)} = ${n}" for n, name in enumerate(columns, 3)]
    if finished is not None:
        now = "pg_catalog.clock_timestamp()"
        assignments.append(f"finished_at = {now if finished else 'NULL'}")
    # Column names are ours, from the call; values are parameters.
    statement = f"UPDATE airlock.deploy SET {', '.join(assignments)} WHERE id = $1 AND fence = $2"  # noqa: S608
    async with conn.transaction():
        await check_fence(conn, lease)
        await conn.execute(statement, lease.deploy, lease.fence, *columns.values())


_DEPLOYS = postgres.query("deploys")


async def deploy(conn: Conn, number: int) -> Deploy:
    """One deploy. Raises Refused when there is none of that number."""
    row = await conn.fetchrow(f"{_DEPLOYS} WHERE id = $1", number)
    if row is None:
        raise Refused(f"The ledger has no deploy {number}. See: airlock history")
    return _deploy(row)


async def last(conn: Conn) -> Deploy | None:
    """The newest deploy; None where there was none yet."""
    return next(iter(await recent(conn)), None)


async def recent(conn: Conn, *, limit: int = 1) -> tuple[Deploy, ...]:
    """The newest deploys, newest first."""
    if not await exists(conn):
        return ()
    rows = await conn.fetch(f"{_DEPLOYS} ORDER BY id DESC LIMIT $1", limit)
    return tuple(_deploy(row) for row in rows)


async def last_of_run(conn: Conn, flow_run: str) -> int | None:
    """The newest deploy that a run of Prefect opened or works on; None where there is none."""
    if await version(conn) < WITH_RUNS:
        return None
    return await conn.fetchval(
        "SELECT pg_catalog.max(id) FROM (SELECT id FROM airlock.deploy WHERE flow_run = $1"
        " UNION ALL SELECT deploy FROM airlock.event WHERE step = $2 AND detail = $1) AS its (id)",
        flow_run,
        OPENED,
    )


async def starter(conn: Conn, instance: Instance, *, before: int) -> Deploy | None:
    """The deploy that started an instance with its new release; None where none before that did."""
    identity = ("pid", "create_time", "boot_id")
    row = await conn.fetchrow(
        f"{_DEPLOYS} WHERE id < $1 AND restart->'new' @> $2::jsonb ORDER BY id DESC LIMIT 1",
        before,
        json.dumps(dict(zip(identity, instance.identity, strict=True))),
    )
    return _deploy(row) if row else None


async def outcomes(conn: Conn, target: str, *, since: datetime) -> tuple[Outcome, ...]:
    """How the deploys of a target went that began since then, oldest first."""
    if not await exists(conn):
        return ()
    rows = await conn.fetch(postgres.query("deploy_outcomes"), target, since, REOPENED)
    return tuple(record.row(Outcome, dict(row)) for row in rows)


async def tally(conn: Conn, target: str) -> tuple[dict[State, int], datetime | None]:
    """How many deploys there are in each state, and when the newest that stands was finished.

    Dry runs are none, nor are refreshes, whose request knows no dry run.
    """
    if not await exists(conn):
        return {}, None
    rows = await conn.fetch(
        "SELECT state, pg_catalog.count(*), pg_catalog.max(finished_at) AS finished_at"
        " FROM airlock.deploy WHERE target = $1 AND request->>'dry_run' = 'false'"
        " GROUP BY state ORDER BY state",
        target,
    )
    ends = {row["state"]: row["finished_at"] for row in rows}
    return {row["state"]: row["count"] for row in rows}, ends.get("succeeded")


def _deploy(row: asyncpg.Record) -> Deploy:
    # A ledger that no deploy has upgraded yet lacks the newer columns.
    values: dict[str, Any] = {name: row[name] for name in Deploy.__slots__ if name in row}
    return record.row(Deploy, {**values, "runner_gone": holder.is_gone(row.get("holder") or "")})


# ---------------------------------------------------------------- migrations


async def applied(conn: Conn) -> tuple[AppliedMigration, ...]:
    """What stands in this database now, by version."""
    if not await exists(conn):
        return ()
    return _migrations(await conn.fetch(postgres.query("migrations_current")))


async def migrations_of(conn: Conn, number: int) -> tuple[AppliedMigration, ...]:
    """What one deploy did, rolled back or not, in the order of its plan."""
    return _migrations(await conn.fetch(postgres.query("migrations_of_deploy"), number))


async def migration_of(conn: Conn, number: int, version: int) -> AppliedMigration | None:
    """What one deploy did with one migration; None when it has not begun it."""
    rows = await conn.fetch(postgres.query("migration_of_deploy"), number, version)
    return next(iter(_migrations(rows)), None)


def _migrations(rows: list[asyncpg.Record]) -> tuple[AppliedMigration, ...]:
    return tuple(record.row(AppliedMigration, dict(row)) for row in rows)


def forward_record(
    lease: Lease, migration: Migration, *, position: int, done: int, total: int
) -> str:
    """SQL that writes that ``done`` of ``total`` segments of a migration are in the database.

    After the last one it writes a line of the journal as well. A statement of its own, with its
    values in it, so that COMMIT can go in the same message.
    """
    state = "applied" if done == total else "started"
    row = postgres.with_values(
        postgres.query("migration_forward"),
        lease.deploy,
        migration.version,
        migration.name,
        migration.checksum,
        migration.forward,
        migration.reverse,
        state,
        position,
        done,
    )
    return f"{row}; {_journaled(lease, f'{migration.label} applied')}" if done == total else row


def reverse_record(lease: Lease, row: AppliedMigration, *, done: int, total: int) -> str:
    """SQL that writes that ``done`` of ``total`` segments of the reverse SQL were run."""
    sql = postgres.with_values(
        postgres.query("migration_reverse"), lease.deploy, row.version, done, done == total
    )
    return f"{sql}; {_journaled(lease, f'{row.label} rolled back')}" if done == total else sql


def _journaled(lease: Lease, detail: str) -> str:
    # For a transaction that holds the fence.
    return postgres.with_values(
        "INSERT INTO airlock.event (deploy, fence, step, phase, detail)"
        " VALUES ($1, $2, 'migration', 'done', $3)",
        lease.deploy,
        lease.fence,
        detail,
    )


# ---------------------------------------------------------------- backfills

Direction = Literal["forward", "reverse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillProgress:
    """How far one direction of a backfill came. Keys are text; rows are counted as they are walked.

    upper_key: the last one to do; None where there is nothing to do.
    expected_rows: about how many there are, as the server estimates.
    """

    version: int
    name: str
    direction: Direction
    upper_key: str | None
    last_key: str | None
    changed_rows: int
    walked_rows: int
    expected_rows: int
    batches: int

    @property
    def label(self) -> str:
        """Such as ``011_fill_score``, and which way where that is back."""
        way = "" if self.direction == "forward" else ", back"
        return f"{label(self.version, self.name)}{way}"

    @property
    def is_done(self) -> bool:
        return self.upper_key == self.last_key

    def sentence(self, rows_per_s: float = 0.0) -> str:
        """Such as ``1,250,000 of about 2,000,000 rows (62 %), 41 s left``."""
        if self.is_done:
            return f"done, {self.changed_rows:,} rows changed in {self.batches:,} batches"
        # The estimate may be old; no more than nearly all of it is done before the end.
        expected = max(self.expected_rows, self.walked_rows + 1)
        said = f"{self.walked_rows:,} of about {expected:,} rows"
        said += f" ({100 * self.walked_rows // expected} %)"
        if rows_per_s > 0:
            said += f", {(expected - self.walked_rows) / rows_per_s:,.0f} s left"
        return said


async def backfills(conn: Conn, number: int) -> tuple[BackfillProgress, ...]:
    """How far each backfill of a deploy came; none in an older ledger."""
    if await version(conn) < 3:
        return ()
    rows = await conn.fetch(postgres.query("backfills"), number)
    return tuple(record.row(BackfillProgress, dict(row)) for row in rows)


async def begin_backfill(
    conn: Conn,
    lease: Lease,
    version: int,
    direction: Direction,
    upper_key: str | None,
    expected_rows: int,
) -> None:
    """Write what a backfill will do. For a transaction that holds the fence."""
    place = (lease.deploy, version, direction)
    await conn.execute(postgres.query("backfill_begin"), *place, upper_key, expected_rows)


async def forget_backfill(conn: Conn, lease: Lease, version: int) -> None:
    """Forget what an earlier, undone run did. For a transaction that holds the fence."""
    for table in ("backfill", "backfill_batch"):
        await conn.execute(
            f"DELETE FROM airlock.{table} WHERE deploy = $1 AND version = $2",  # noqa: S608 – ours
            lease.deploy,
            version,
        )


def batch_record(lease: Lease, done: BackfillProgress) -> str:
    """SQL that writes how far a backfill is after a batch, to be sent with its COMMIT."""
    return postgres.with_values(
        postgres.query("backfill_batch"),
        lease.deploy,
        done.version,
        done.direction,
        done.last_key or "",
        done.changed_rows,
        done.walked_rows,
        done.batches,
    )


# ---------------------------------------------------------------- journal


async def event(
    conn: Conn,
    lease: Lease,
    step: str,
    phase: Literal["intent", "done", "failed"],
    detail: str = "",
) -> None:
    """Append one line to the journal; none when the deploy was taken over."""
    await conn.execute(
        postgres.query("event"),
        lease.deploy,
        lease.fence,
        step,
        phase,
        _showable(lease, detail),
    )


def _showable(lease: Lease, text: str) -> str:
    # Whatever failed may have quoted a secret; from here on it is read by many.
    return log.mask(settings.target(lease.target), text) if text else ""


async def events(conn: Conn, number: int) -> tuple[Event, ...]:
    rows = await conn.fetch(
        "SELECT at, step, phase, detail FROM airlock.event WHERE deploy = $1 ORDER BY sequence",
        number,
    )
    return tuple(record.row(Event, dict(row)) for row in rows)


async def was_reopened(conn: Conn, number: int) -> bool:
    """Whether a person took the deploy up again in order to undo it."""
    return await conn.fetchval(
        "SELECT EXISTS (SELECT FROM airlock.event WHERE deploy = $1 AND step = $2)",
        number,
        REOPENED,
    )


def step_times(journaled: Sequence[Event]) -> tuple[StepTime, ...]:
    """The steps of a journal in order; each intent with the result that follows it.

    An attempt that was killed has none before the next one of its step.
    """
    open_steps: dict[str, datetime] = {}
    done, unfinished = list[StepTime](), list[StepTime]()
    for event in journaled:
        if event.phase == "intent":
            if killed := open_steps.get(event.step):
                unfinished.append(_unfinished(event.step, killed))
            open_steps[event.step] = event.at
        elif event.step in open_steps:
            began = open_steps.pop(event.step)
            seconds = (event.at - began).total_seconds()
            done.append(
                StepTime(step=event.step, began_at=began, seconds=seconds, ended=event.phase)
            )
    unfinished += [_unfinished(step, at) for step, at in open_steps.items()]
    return tuple(sorted([*done, *unfinished], key=lambda each: each.began_at))


def _unfinished(step: str, began_at: datetime) -> StepTime:
    return StepTime(step=step, began_at=began_at, seconds=None, ended="unfinished")


async def failed_step(conn: Conn, number: int) -> str | None:
    """The step that failed last, unless a later try went well.

    None when none did, as in a rollback by hand.
    """
    return await conn.fetchval(postgres.query("failed_step"), number, sorted(UNDOES))


@asynccontextmanager
async def journal(
    target: Target, lease: Lease, step: str, detail: str = ""
) -> AsyncGenerator[Conn]:
    """Intent before the block, done or failed after it; yields a connection for its records.

    Raises LeaseLost before anything is done when the deploy was taken over.
    """
    async with connection(target) as conn:
        with postgres.translated(f"writing the intent of {step}"):
            await postgres.stay_connected(conn)
            async with conn.transaction():
                await check_fence(conn, lease)
                await event(conn, lease, step, "intent", detail)
        try:
            yield conn
        except BaseException as error:
            await record_failure(target, lease, step, error)
            raise
        with postgres.translated(f"writing the result of {step}"):
            await event(conn, lease, step, "done")


# Of errors that say nothing by themselves.
_NAMES: Mapping[type[BaseException], str] = {
    asyncio.CancelledError: "stopped half-way",
    TimeoutError: "its time was up",
}


async def record_failure(target: Target, lease: Lease, step: str, error: BaseException) -> None:
    # On a connection of its own: the step's may be what broke. The failure matters more than its
    # record, so a ledger out of reach does not hide it.
    with contextlib.suppress(AirlockError, OSError):
        async with connection(target) as conn:
            said = str(error) or _NAMES.get(type(error), type(error).__name__)
            await event(conn, lease, step, "failed", said)


# ---------------------------------------------------------------- catalogues


async def save_catalogue(conn: Conn, catalogue: Catalogue) -> str:
    """Store a catalogue under its fingerprint, which is returned."""
    fingerprint = catalogue.fingerprint
    await conn.execute(
        "INSERT INTO airlock.catalogue (fingerprint, objects) VALUES ($1, $2)"
        " ON CONFLICT DO NOTHING",
        fingerprint,
        catalogue.to_json(),
    )
    return fingerprint


async def load_catalogue(conn: Conn, fingerprint: str) -> Catalogue:
    text = await conn.fetchval(
        "SELECT objects FROM airlock.catalogue WHERE fingerprint = $1", fingerprint
    )
    if text is None:
        raise Unreadable(f"The ledger has no catalogue {fingerprint[:12]}")
    try:
        found = Catalogue.from_json(text)
    except ValueError:
        found = None
    if found is None or found.fingerprint != fingerprint:
        raise Unreadable(f"The ledger's catalogue {fingerprint[:12]} is not what was stored")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSeen:
    """The schema that the newest finished deploy left behind."""

    deploy: int
    fingerprint: str
    guard: str | None


async def last_seen(conn: Conn) -> LastSeen | None:
    """What the schema should be, as far as the ledger knows."""
    if not await exists(conn):
        return None
    row = await conn.fetchrow(
        "SELECT id AS deploy, schema_after AS fingerprint, guard_after AS guard FROM airlock.deploy"
        " WHERE schema_after IS NOT NULL ORDER BY finished_at DESC NULLS LAST LIMIT 1"
    )
    return record.row(LastSeen, dict(row)) if row else None


# ---------------------------------------------------------------- outbox


# What an alert is emitted as an event by; no channel of the settings.
EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedAlert:
    """An alert that waits for one of its channels at least."""

    id: int
    deploy: int | None  # None: about drift, which no deploy made
    dedup_key: str
    body: str
    age_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One alert on its way to one channel.

    waited_s: since it was last tried; None before the first time.
    refused: the channel said that it will not take it, and may say so again.
    """

    alert: int
    channel: str
    attempts: int = 0
    last_error: str | None = None
    waited_s: float | None = None
    refused: bool = False
    taken: bool = False


async def enqueue_alert(conn: Conn, deploy: int | None, dedup_key: str, body: str) -> None:
    """Put an alert into the outbox, once per key."""
    await conn.execute(
        "INSERT INTO airlock.alert (deploy, dedup_key, body) VALUES ($1, $2, $3)"
        " ON CONFLICT (dedup_key) DO NOTHING",
        deploy,
        dedup_key,
        body,
    )


async def undelivered(conn: Conn) -> tuple[QueuedAlert, ...]:
    """The alerts that one of their channels has not taken yet, oldest first."""
    if not await exists(conn):
        return ()
    rows = await conn.fetch(
        "SELECT id, deploy, dedup_key, body, extract(epoch FROM pg_catalog.clock_timestamp()"
        " - created_at)::double precision AS age_s FROM airlock.alert"
        " WHERE delivered_at IS NULL ORDER BY id"
    )
    return tuple(record.row(QueuedAlert, dict(row)) for row in rows)


async def unannounced(conn: Conn) -> tuple[QueuedAlert, ...]:
    """The alerts of the last day that were not emitted as events yet, oldest first."""
    rows = await conn.fetch(
        "SELECT id, deploy, dedup_key, body FROM airlock.alert AS a"
        " WHERE created_at > pg_catalog.clock_timestamp() - interval '1 day' AND NOT EXISTS ("
        "SELECT FROM airlock.delivery WHERE alert = a.id AND channel = $1) ORDER BY id",
        EVENTS,
    )
    return tuple(record.row(QueuedAlert, dict(row)) for row in rows)


async def claim_event(conn: Conn, alert: int) -> bool:
    """Whether this transaction may emit an alert as an event: nobody else does, or did."""
    row = await conn.fetchrow(
        "INSERT INTO airlock.delivery (alert, channel, attempts, tried_at, delivered_at)"
        " VALUES ($1, $2, 1, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp())"
        " ON CONFLICT DO NOTHING RETURNING alert",
        alert,
        EVENTS,
    )
    return row is not None


async def open_alerts(conn: Conn, target: str, states: Collection[str]) -> tuple[QueuedAlert, ...]:
    """A target's alerts in these states that no later alert has put an end to, oldest first."""
    if not await exists(conn):
        return ()
    rows = await conn.fetch(postgres.query("open_alerts"), target, list(states))
    return tuple(QueuedAlert(**dict(row)) for row in rows)


async def cut_off_among(conn: Conn, deploys: Collection[int]) -> tuple[int, ...]:
    """Those of these deploys that were taken over after their runner had died."""
    rows = await conn.fetch(
        "SELECT DISTINCT deploy FROM airlock.event WHERE step = $1 AND deploy = ANY ($2)"
        " ORDER BY deploy",
        CUT_OFF,
        list(deploys),
    )
    return tuple(row["deploy"] for row in rows)


async def last_alert(
    conn: Conn, target: str, kind: Literal["drift", "schedules"] | None = None
) -> QueuedAlert | None:
    """The newest alert about a target; of that kind, if one is named."""
    row = await conn.fetchrow(
        "SELECT id, deploy, dedup_key, body FROM airlock.alert WHERE body->>'target' = $1"
        " AND ($2::pg_catalog.text IS NULL OR body->>'kind' = $2) ORDER BY id DESC LIMIT 1",
        target,
        kind,
    )
    return record.row(QueuedAlert, dict(row)) if row else None


async def deliveries(conn: Conn) -> tuple[Delivery, ...]:
    """What is known of the channels of undelivered alerts; nothing in an older ledger."""
    if await version(conn) < WITH_DELIVERIES:
        return ()
    rows = await conn.fetch(postgres.query("deliveries"))
    return tuple(record.row(Delivery, dict(row)) for row in rows)


async def given_up(conn: Conn, channels: Sequence[str], *, within_s: float) -> tuple[Delivery, ...]:
    """What one of these channels never took, and is asked to take no more since so many seconds."""
    if await version(conn) < WITH_DELIVERIES:
        return ()
    rows = await conn.fetch(postgres.query("given_up"), channels, within_s)
    return tuple(record.row(Delivery, dict(row)) for row in rows)


async def address(conn: Conn, found: Sequence[Delivery]) -> None:
    """Write down which channels an alert is for, so that each can be claimed by itself."""
    await conn.executemany(
        "INSERT INTO airlock.delivery (alert, channel) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        [(each.alert, each.channel) for each in found],
    )


async def claim(conn: Conn, found: Delivery, *, wait_s: float) -> Delivery | None:
    """The delivery as it is now, nobody else's until this transaction ends.

    None where somebody else has had it for ``wait_s`` seconds.
    """
    # Whoever holds the row may wait for a mail server, and does nothing else here.
    await conn.execute(
        "SET LOCAL idle_in_transaction_session_timeout = 0;"
        f" SET LOCAL lock_timeout = {round(wait_s * 1000)}"
    )
    try:
        async with conn.transaction():
            row = await conn.fetchrow(
                "SELECT attempts, refused, delivered_at IS NOT NULL AS taken FROM airlock.delivery"
                " WHERE alert = $1 AND channel = $2 FOR UPDATE",
                found.alert,
                found.channel,
            )
    except asyncpg.LockNotAvailableError:
        return None
    return replace(found, **dict(row)) if row else None


async def record_delivery(
    conn: Conn, alert: int, channel: str, error: str | None, *, refused: bool = False
) -> None:
    """Count one attempt on one channel; without an error the channel has taken the alert."""
    await conn.execute(postgres.query("delivery"), alert, channel, error, refused)


async def close_alerts(conn: Conn, alerts: Sequence[int], channels: Sequence[str]) -> None:
    """Close those of the alerts that none of these channels waits for."""
    await conn.execute(
        "UPDATE airlock.alert AS a SET delivered_at = pg_catalog.clock_timestamp()"
        " WHERE id = ANY($1) AND delivered_at IS NULL AND NOT EXISTS (SELECT FROM airlock.delivery"
        " WHERE alert = a.id AND channel = ANY($2) AND delivered_at IS NULL)",
        alerts,
        channels,
    )
