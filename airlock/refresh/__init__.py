"""The steps of a refresh, each a function of (lease) that any machine can run or repeat.

A target's database is replaced by a masked copy of another target's. It is built beside the one
that serves, which nobody notices; what serves changes in one transaction, and can change back.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airlock import (
    approval,
    deploy,
    ledger,
    lock,
    masked_copy,
    masking,
    outbox,
    postgres,
    preview,
    record,
    settings,
    snapshot,
)
from airlock.apply import Runner
from airlock.errors import AirlockError, LeaseLost, Refused, Transient
from airlock.health import HealthVerdict
from airlock.introspection import read_catalogue, read_guard
from airlock.ledger import Deploy, Lease, State
from airlock.migration import Migration
from airlock.plan import AppliedMigration, Plan
from airlock.postgres import Conn
from airlock.refresh import databases, history
from airlock.refresh.databases import Database
from airlock.refresh.filling import Filling
from airlock.rehearsal import new_problems
from airlock.replacement import MaskedCopy, Replacement
from airlock.request import RefreshRequest
from airlock.settings import RefreshSettings, Target
from airlock.snapshot import Clone, Snapshot

log = logging.getLogger(__name__)

alone = databases.alone


# ---------------------------------------------------------------- plan


async def open_refresh(request: RefreshRequest, *, flow_run: str | None = None) -> Lease:
    """Open the refresh in the ledger of the database that it will replace.

    flow_run: the run of Prefect that asks for it.
    Raises Refused, before any work, when this target may not be replaced or cannot be.
    """
    target = settings.target(request.target)
    approval.check_reason(target, request.reason)
    source = settings.target(configured(target).source)
    if source.name == target.name:
        raise Refused(
            f"{target.name} is its own source in [targets.{target.name}.refresh]. Name the target "
            "whose data it shall have."
        )
    settings.check_env_files(target)
    mask_key(target)
    masking.read_rules(target)
    async with ledger.connection(target) as conn:
        if (begun := await ledger.begun(conn, request)) is not None:
            return begun
        last = await ledger.last(conn)
        if last is not None and last.is_open:
            raise Refused(preview.unfinished(last))
        here = await databases.read(conn)
        await databases.refuse_source(target, here, source)
        others = settings.load().targets.values()
        kept = [each for each in others if each.refresh is None and each.name != source.name]
        await databases.refuse_others(target, here, kept)
        await databases.refuse_server(target, here)
        with postgres.translated("opening the refresh in the ledger"):
            lease = await _begin(conn, request, here, source.name, flow_run)
    log.info("Opened refresh %d of %s from %s", lease.deploy, target.name, source.name)
    return lease


async def _begin(
    conn: Conn, request: RefreshRequest, here: Database, source: str, flow_run: str | None
) -> Lease:
    await ledger.ensure(conn)
    target = settings.target(request.target)
    applied = await ledger.applied(conn)
    planned = Plan(
        target=request.target,
        head=applied[-1].label if applied else None,
        migrations=(),
        schema_before=await ledger.save_catalogue(conn, await read_catalogue(conn)),
    )
    running = chosen = None
    if target.service is not None:
        running = await deploy.running_instance(conn, target)
        chosen = await deploy.kept_release(conn, target)
    # What an undo needs stands there before anything is made.
    async with conn.transaction():
        lease = await ledger.begin(conn, request, planned, flow_run=flow_run)
        names = Replacement.of(lease.deploy, source=source, database=here.name, oid=here.oid)
        await ledger.note(conn, lease, refresh=record.dump(names))
        await ledger.event(conn, lease, "plan_refresh", "done", f"masked copy of {source}")
        await ledger.note(
            conn,
            lease,
            release=record.dump(chosen) if chosen else None,
            previous=record.dump(running) if running else None,
        )
    return lease


def configured(target: Target) -> RefreshSettings:
    """How the target is refreshed. Raises Refused when it is not to be."""
    if target.refresh is None:
        raise Refused(
            f"Target {target.name} is not to be refreshed: it has no [targets.{target.name}."
            "refresh]. Add it only where every row may be replaced."
        )
    return target.refresh


def mask_key(target: Target) -> str:
    """The key of the masks. Raises Refused when it is not set, or could be guessed."""
    name = configured(target).key_env
    with suppress(Refused):
        key = target.variable(name)
        if len(key) >= masked_copy.SHORTEST_KEY:
            return key
    raise Refused(
        f"Target {target.name} takes the key of its masks from {name}, and it is not set there, or "
        f"is shorter than {masked_copy.SHORTEST_KEY} characters. Make one and keep it, so that the "
        f"same value is masked alike in each refresh: export {name}=$(openssl rand -hex 32)"
    )


# ---------------------------------------------------------------- the snapshot


async def choose_snapshot(lease: Lease) -> Snapshot:
    """The newest whole snapshot of the source that is young enough, or a fresh one."""
    target = settings.target(lease.target)
    wanted = configured(target)
    source = settings.target(wanted.source)
    async with ledger.journal(target, lease, "restore_staging") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        request = record.load(RefreshRequest, row.request)
        chosen = None if request.fresh_snapshot else await _young(source, wanted.max_age_h)
        if chosen is None:
            chosen = await _fresh(source)
        if chosen.provider == "logical":
            await databases.refuse_clone(target, source)
        names = replace(row.replacement, snapshot_at=chosen.created_at)
        await databases.sweep(target, names)
        names = await databases.create(target, names, lease.deploy)
        await ledger.advance(
            conn, lease, "snapshotted", snapshot=record.dump(chosen), refresh=record.dump(names)
        )
    return chosen


async def _young(source: Target, max_age_h: float) -> Snapshot | None:
    since = datetime.now(UTC) - timedelta(hours=max_age_h)
    for found in snapshot.list_snapshots(source):
        if found.created_at < since:
            break
        try:
            await snapshot.verify(found, workers=source.snapshot.jobs)
        except Refused as error:
            log.warning("Snapshot %s is passed over: %s", found.id, error)
            continue
        log.info("Using snapshot %s of %s, of %s", found.id, source.name, found.created_at)
        return found
    return None


async def _fresh(source: Target) -> Snapshot:
    # A deploy would alter what pg_dump reads; only for as long as that takes.
    try:
        async with lock.hold(source):
            async with ledger.connection(source) as conn:
                applied = await ledger.applied(conn)
            taken = await snapshot.take(source, head=applied[-1].label if applied else None)
    except LeaseLost as error:  # of the source's lock, not of this refresh
        raise Transient(str(error)) from error
    try:
        await snapshot.retain(source)
    except (AirlockError, OSError) as error:
        log.warning("Old snapshots of %s were not removed: %s", source.name, error)
    return taken


# ---------------------------------------------------------------- the copy


async def mask(lease: Lease) -> MaskedCopy:
    """Fill the build database from the snapshot, each row masked on its way, and prove it."""
    target = settings.target(lease.target)
    source = settings.target(configured(target).source)
    async with ledger.journal(target, lease, "mask") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        if row.snapshot is None:
            raise Refused(f"Refresh {row.id} of {row.target} has no snapshot. Start it again.")
        taken = record.load(Snapshot, row.snapshot)
        # An earlier try may have left half of it.
        names = await databases.create(target, row.replacement, lease.deploy)
        await ledger.note(conn, lease, refresh=record.dump(names))
        name = f"refresh-{lease.target}-{lease.deploy}"
        async with snapshot.restore(taken, source, name=name) as clone:
            copied, adopted, waiting = await _filled(target, clone, names)
        url = databases.url_of(target, names.build)
        async with postgres.connect(url, limit_s=postgres.TABLES_S) as build:
            await history.carry(conn, build, lease)
            await history.adopt(build, lease, adopted)
        head = adopted[-1].label if adopted else None
        await ledger.note(
            conn,
            lease,
            refresh=record.dump(replace(names, copied=copied, adopted=head)),
            plan=record.dump(replace(row.planned, migrations=waiting)),
        )
    log.info("Masked copy of %s: %s", source.name, copied.sentence)
    return copied


async def _filled(
    target: Target, clone: Clone, names: Replacement
) -> tuple[MaskedCopy, tuple[AppliedMigration, ...], tuple[Migration, ...]]:
    with tempfile.TemporaryDirectory(prefix="airlock-") as folder:
        filling = Filling(
            target=target,
            settings=configured(target),
            clone=clone,
            names=names,
            folder=Path(folder),
        )
        # Before the rows: what the folder or the rules lack is said in seconds.
        adopted, waiting = await filling.migrations()
        masks = await filling.masks()
        return await filling.fill(masks, mask_key(target)), adopted, waiting


async def migrate_copy(lease: Lease) -> tuple[str, ...]:
    """Apply what this checkout has beyond the source, and make the copy harmless.

    Returns the migrations' labels. Nobody reaches the copy yet, so nothing has to go back.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "migrate_copy") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        names, todo = row.replacement, row.planned
        await databases.dress(target, names)
        url = databases.url_of(target, names.build)
        async with _unpinned(url) as build:
            with postgres.translated(f"migrating {names.build}"):
                before = await read_catalogue(build)
                await _migrate(build, target, lease, todo, url)
                await _neutralise(build, target)
                await _refresh_views(build, target)
                after = await read_catalogue(build)
        if faults := new_problems(before, after):
            raise Refused(
                f"After {todo.versions} the copy has: {'; '.join(faults)}. Mend the migration; "
                f"{target.name} was not touched."
            )
        fingerprint = await ledger.save_catalogue(conn, after)
        await ledger.advance(conn, lease, "rehearsed", schema_expected=fingerprint)
    return tuple(each.label for each in todo.migrations)


def _unpinned(url: str) -> AbstractAsyncContextManager[Conn]:
    """A session for migrations, and for what the settings say."""
    return postgres.connect(url, purpose="refresh", limit_s=postgres.TABLES_S, pinned=False)


async def _migrate(build: Conn, target: Target, lease: Lease, todo: Plan, url: str) -> None:
    async with postgres.pinned(build):
        rows = await ledger.migrations_of(build, lease.deploy)
    adopted = sum(row.state == "adopted" for row in rows)
    runner = Runner(
        url=url,
        conn=build,
        lease=lease,
        budget=target.budget,
        begun={row.version: row for row in rows},
    )
    for position, each in enumerate(todo.migrations, adopted + 1):
        await runner.forward(each, position=position)


async def _neutralise(build: Conn, target: Target) -> None:
    """Run the statements that stop the copy from writing to the world."""
    async with build.transaction():
        # Rows that a policy hides would stay as they are, and nobody would be told.
        await build.execute("SET LOCAL row_security = off")
        for number, statement in enumerate(configured(target).neutralise, 1):
            try:
                status = await build.execute(statement)
            except postgres.DRIVER_ERRORS as error:
                failed = f"Statement {number} of refresh.neutralise failed"
                if postgres.is_transient(error):
                    raise postgres.translate(error, failed) from error
                raise Refused(
                    f"{failed}: {postgres.wording(error)}. Mend it in airlock.toml; {target.name} "
                    "was not touched."
                ) from error
            log.info("Neutralised: statement %d, %s", number, status)


async def _refresh_views(build: Conn, target: Target) -> None:
    """Fill the materialised views once more: they keep what was neutralised below them."""
    if not configured(target).neutralise:
        return
    async with postgres.pinned(build):
        rows = await build.fetch(postgres.query("filled_views"))
    for row in rows:
        await build.execute(
            f"REFRESH MATERIALIZED VIEW {postgres.quote_ident(row['schema'], row['name'])}"
        )


# ---------------------------------------------------------------- the swap


async def swap_databases(lease: Lease) -> None:
    """Put the copy in the place of the database that serves, in one transaction.

    A second call finds by the oids what the first one did.
    """
    target = settings.target(lease.target)
    async with _journal(target, lease, "swap_databases"):
        async with ledger.connection(target) as conn:
            names = (await ledger.deploy(conn, lease.deploy)).replacement
        if not await _is_swapped(target, names):
            here = await _hand_over(target, lease, names.build, "applying")
            await databases.swap(target, here, names, deploy=lease.deploy)
        async with ledger.connection(target) as conn:
            await ledger.advance(conn, lease, "applied", guard_after=await read_guard(conn))


async def _hand_over(target: Target, lease: Lease, incoming: str, state: State) -> Database:
    """Write the intent, and bring the ledger of the database that comes in up to it.

    No session of ours is in either of the two afterwards.
    """
    async with (
        ledger.connection(target) as conn,
        postgres.connect(
            databases.url_of(target, incoming), purpose="refresh", limit_s=postgres.TABLES_S
        ) as other,
    ):
        await ledger.advance(conn, lease, state)
        with postgres.translated(f"carrying the ledger to {incoming}"):
            await history.carry(conn, other, lease)
        return await databases.read(conn)


async def is_swapped(target: Target, row: Deploy) -> bool:
    """Whether the copy of a refresh is the database that serves."""
    return await _is_swapped(target, row.replacement)


async def _is_swapped(target: Target, names: Replacement) -> bool:
    async with databases.server(target) as conn:
        return await databases.is_swapped(conn, names)


@asynccontextmanager
async def _journal(
    target: Target, lease: Lease, step: str, detail: str = ""
) -> AsyncGenerator[None]:
    """Intent, and done or failed, each written into the database that serves at that moment.

    ``ledger.journal`` holds a session throughout, and the swap ends it. Whether the lease was lost
    is seen by the first thing that the block writes.
    """
    async with ledger.connection(target) as conn:
        await ledger.event(conn, lease, step, "intent", detail)
    try:
        yield
    except BaseException as error:
        await ledger.record_failure(target, lease, step, error)
        raise
    async with ledger.connection(target) as conn:
        await ledger.event(conn, lease, step, "done")


# ---------------------------------------------------------------- the ends


async def succeed(lease: Lease) -> None:
    """Close a refresh that went well, and let go of older copies."""
    await deploy.succeed(lease)
    target = settings.target(lease.target)
    try:
        async with ledger.connection(target) as conn:
            names = (await ledger.deploy(conn, lease.deploy)).replacement
        await databases.retain(target, names, configured(target).keep)
    except Exception as error:  # noqa: BLE001 – the refresh went well, and would be undone
        # What is old may wait.
        log.warning("Old copies of %s were not dropped: %s", target.name, error)


async def clear(lease: Lease) -> None:
    """Drop the build database of a refresh that failed or was undone. Never fails.

    The one that serves is none.

    What cannot be dropped now the next refresh sweeps.
    """
    target = settings.target(lease.target)
    try:
        async with ledger.connection(target) as conn:
            await ledger.check_fence(conn, lease)
            names = (await ledger.deploy(conn, lease.deploy)).replacement
        await databases.drop_build(target, names)
    except AirlockError as error:
        log.warning("The build database of %s was not dropped: %s", target.name, error)


@asynccontextmanager
async def free_to_undo(target: Target, number: int | None = None) -> AsyncGenerator[None]:
    """Room to undo what was done last: if that is a refresh, nobody else may be at it.

    To be entered before its lease is taken over, which would stop whoever is at it.
    number: the deploy that is meant; the last one by default.
    Raises Refused when it cannot be undone.
    """
    async with ledger.connection(target) as conn:
        last = await deploy.last_to_undo(conn, number)
    if last is None or last.kind == "deploy":
        yield
        return
    async with alone(target):
        await check_undoable(target, last)
        yield


async def check_undoable(target: Target, row: Deploy) -> None:
    """Raises Refused when the database from before this refresh is no longer there."""
    names = row.replacement
    async with databases.server(target) as conn:
        gone = await databases.is_swapped(conn, names) and not await databases.old_is_there(
            conn, names
        )
    if gone:
        raise Refused(
            f"Refresh {row.id} of {target.name} cannot be undone: the database from before it, "
            f"{names.kept}, is gone. Nothing was changed. [targets.{target.name}.refresh] keep "
            f"says how many stay; for newer data: airlock refresh {target.name}"
        )


async def swap_back(lease: Lease, failure: str) -> HealthVerdict | None:
    """The database from before the refresh serves again, and the service with it.

    Where it was not swapped yet, it never stopped serving. What was written into the copy since
    goes with it. Raises Stranded when the service does not become healthy.
    """
    target = settings.target(lease.target)
    async with _journal(target, lease, "swap_back", failure):
        async with ledger.connection(target) as conn:
            row = await deploy.going_back(conn, lease, failure)
        names = row.replacement
        if await _is_swapped(target, names):
            here = await _hand_over(target, lease, names.kept, "rolling_back")
            await databases.swap(target, here, names, deploy=lease.deploy, back=True)
        async with ledger.connection(target) as conn:
            after = await deploy.serve_again(conn, target, lease)
            async with conn.transaction():
                await ledger.advance(conn, lease, "rolled_back", schema_after=row.schema_before)
                await outbox.enqueue(conn, lease)
    # Nobody waits for it, and the old database serves whether it goes or not.
    await clear(lease)
    return after.health
