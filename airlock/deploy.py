"""The steps of a deploy, each a function of (lease, ledger) that any machine can run or repeat.

What a step needs it reads from the ledger, and what an undo will need it leaves there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from airlock import (
    health,
    ledger,
    postgres,
    preview,
    record,
    rehearsal,
    release,
    report,
    rollback,
    service,
    settings,
    snapshot,
)
from airlock.apply import Runner
from airlock.catalogue import Catalogue, SchemaDiff, diff
from airlock.errors import AirlockError, Broken, Refused, Stranded
from airlock.health import HealthVerdict
from airlock.introspection import read_catalogue, read_guard
from airlock.ledger import Deploy, Lease
from airlock.plan import Plan
from airlock.postgres import Conn
from airlock.rehearsal import Rehearsal, new_problems
from airlock.release import Release
from airlock.request import DeployRequest
from airlock.rollback import Undone
from airlock.service import Instance, Restart
from airlock.settings import Target
from airlock.snapshot import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What stands in production after the apply."""

    migrations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What went back, and how the service is now."""

    undone: Undone
    restart: Restart | None
    health: HealthVerdict | None


# ---------------------------------------------------------------- plan


async def open_deploy(request: DeployRequest) -> Lease | None:
    """Plan the request and open it in the ledger; None when there is nothing to do."""
    target = settings.target(request.target)
    if target.service is None and request.release:
        raise Refused(
            f"Target {target.name} has no service, so there is no release {request.release!r} to "
            f"start. Add [targets.{target.name}.service] to airlock.toml, or leave it out."
        )
    if (begun := await _begun_already(target, request)) is not None:
        return begun
    planned, schema = await preview.look(target, request.up_to)
    if not planned.migrations and request.release is None:
        log.info("Nothing to do on %s: it stands at %s", target.name, planned.head or "nothing")
        return None
    async with ledger.connection(target) as conn:
        with postgres.translated("opening the deploy in the ledger"):
            await ledger.ensure(conn)
            if schema.catalogue is not None:
                await ledger.save_catalogue(conn, schema.catalogue)
            lease = await ledger.begin(conn, request, planned)
            await ledger.event(conn, lease, "plan_migrations", "done", planned.versions)
    log.info("Opened deploy %d of %s: %s", lease.deploy, target.name, planned.versions)
    return lease


async def _begun_already(target: Target, request: DeployRequest) -> Lease | None:
    """The deploy that an earlier try of this very process opened without hearing of it."""
    async with ledger.connection(target) as conn:
        for last in await ledger.recent(conn):
            same = DeployRequest.model_validate_json(last.request) == request
            if last.state == "planned" and last.holder == ledger.holder_name() and same:
                return Lease(target=target.name, deploy=last.id, fence=last.fence)
    return None


async def planned(lease: Lease) -> Plan:
    """The plan of an open deploy."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        return (await ledger.deploy(conn, lease.deploy)).planned


# ---------------------------------------------------------------- before production


async def prepare_release(lease: Lease) -> Release | None:
    """Check out and build the code that goes with the plan, before anything is touched."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "prepare_release") as conn:
        request = await _request(conn, lease)
        chosen = await release.check_out(target, request.release)
        await ledger.note(conn, lease, release=record.dump(chosen))
    return chosen


async def take_snapshot(lease: Lease) -> Snapshot:
    """Back up the target."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "take_snapshot") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        taken = await snapshot.take(target, head=row.planned.head)
        await ledger.advance(conn, lease, "snapshotted", snapshot=record.dump(taken))
    return taken


async def rehearse(lease: Lease) -> Rehearsal:
    """Run the plan on the restored snapshot, there and back and there again."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "rehearse") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        source = record.load(Snapshot, _needed(row.snapshot, "snapshot"))
        rehearsed, expected = await rehearsal.rehearse(target, lease, row.planned, source)
        fingerprint = await ledger.save_catalogue(conn, expected)
        await ledger.advance(
            conn,
            lease,
            "rehearsed",
            rehearsal=record.dump(rehearsed),
            schema_expected=fingerprint,
        )
    return rehearsed


# ---------------------------------------------------------------- production


async def apply_plan(lease: Lease) -> Applied:
    """Run the rehearsed plan on production; what the ledger already has is skipped."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "apply_plan") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        todo = row.planned
        rehearsed = _rehearsed(row, todo)
        await _check_schema(conn, lease, rehearsed)
        await run_plan(conn, lease, todo)
    return Applied(migrations=tuple(each.label for each in todo.migrations))


async def run_plan(conn: Conn, lease: Lease, todo: Plan) -> None:
    """Every migration of the plan, on a connection of its own. The apply without its checks."""
    target = settings.target(lease.target)
    await ledger.advance(conn, lease, "applying")
    async with postgres.connect(target.database_url, purpose="apply") as production:
        rows = await ledger.migrations_of(production, lease.deploy)
        runner = Runner(
            url=target.database_url,
            conn=production,
            lease=lease,
            budget=target.budget,
            begun={row.version: row for row in rows},
        )
        for position, each in enumerate(todo.migrations, 1):
            await runner.forward(each, position=position)
    await ledger.advance(conn, lease, "applied")


def _rehearsed(row: Deploy, todo: Plan) -> Rehearsal:
    """The rehearsal of exactly this plan. Raises Refused when there is none."""
    if row.rehearsal is None:
        raise Refused(
            f"Deploy {row.id} was not rehearsed. Start it again: airlock deploy {row.target}"
        )
    rehearsed = record.load(Rehearsal, row.rehearsal)
    if rehearsed.checksums != todo.checksums or rehearsed.schema_before != todo.schema_before:
        raise Refused(
            f"Deploy {row.id} was rehearsed with other files or on another schema than it would "
            f"apply now. Start it again: airlock deploy {row.target}"
        )
    return rehearsed


async def _check_schema(conn: Conn, lease: Lease, rehearsed: Rehearsal) -> None:
    """Production must be where the rehearsal was at this point of the plan."""
    rows = await ledger.migrations_of(conn, lease.deploy)
    if any(row.state == "started" for row in rows):
        return  # between two segments the rehearsal has no fingerprint
    done = [row for row in rows if row.state == "applied"]
    expected = rehearsed.migrations[len(done) - 1].schema_after if done else rehearsed.schema_before
    found = (await read_catalogue(conn)).fingerprint
    if found != expected:
        raise Refused(
            f"Production's schema changed since the rehearsal: fingerprint {found[:12]}, expected "
            f"{expected[:12]}. Nothing was applied now. Start the deploy again: "
            f"airlock deploy {lease.target}"
        )


async def verify_schema(lease: Lease) -> SchemaDiff:
    """Hold production's catalogue against the rehearsed one. Raises Broken when they differ."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "verify_schema") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        expected = await ledger.load_catalogue(conn, _needed(row.schema_expected, "schema"))
        guard = await read_guard(conn)  # before the catalogue, so that a later change shows
        found = await read_catalogue(conn)
        difference = diff(expected, found)
        if not difference.is_empty:
            raise Broken(
                f"After the apply {target.name} differs from the rehearsal:\n{difference.render()}"
            )
        before = await ledger.load_catalogue(conn, _needed(row.schema_before, "schema"))
        if faults := new_problems(before, found):
            raise Broken(f"After the apply {target.name} has: {'; '.join(faults)}")
        await ledger.advance(conn, lease, "verified", guard_after=guard)
    return difference


async def restart_service(lease: Lease) -> Restart | None:
    """The new release up and ready before the old one drains; None without a service."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "restart_service") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        chosen = record.load(Release, _needed(row.release, "release"))
        running = await _running(conn, target)
        if row.previous is None and running is not None:
            # What an undo starts again, written before it is ended.
            await ledger.note(conn, lease, previous=record.dump(running))
        done = await service.restart(
            target, chosen, old=running, token=f"deploy-{lease.deploy}-forward"
        )
        await ledger.advance(conn, lease, "restarted", restart=record.dump(done))
    return done


async def _running(conn: Conn, target: Target) -> Instance | None:
    """The instance that serves now: the one the ledger started last, or one started by hand."""
    for row in await ledger.recent(conn, limit=20):
        if row.restart is not None:
            return await service.find(target, record.load(Restart, row.restart).new)
    return await service.find(target, None)


async def check_health(lease: Lease) -> HealthVerdict | None:
    """Whether the new instance answers well, and goes on doing so. Raises Broken when not."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "check_health") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        new = record.load(Restart, _needed(row.restart, "restart")).new
        verdict = await health.check(target, new)
        if verdict.verdict != "healthy":
            await ledger.note(conn, lease, health=record.dump(verdict))
            raise Broken(f"The new release is {verdict.verdict}: {verdict.summary}")
        await ledger.advance(conn, lease, "healthy", health=record.dump(verdict))
    return verdict


# ---------------------------------------------------------------- the ends


async def succeed(lease: Lease) -> None:
    """Close a deploy that went well, and let go of old backups and releases."""
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        await ledger.advance(
            conn, lease, "succeeded", schema_after=row.schema_expected or row.schema_before
        )
    try:
        await snapshot.retain(target)
    except (AirlockError, OSError) as error:
        # What is old may wait; a deploy that went well does not fail over it.
        log.warning("Old snapshots of %s were not removed: %s", target.name, error)
    log.info("Deploy %d of %s succeeded", lease.deploy, target.name)


async def fail(lease: Lease, failure: str) -> None:
    """Close a deploy that failed before production was touched."""
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        step = await ledger.failed_step(conn, lease.deploy)
        await ledger.advance(
            conn,
            lease,
            "failed",
            failed_step=step,
            failure=failure,
            schema_after=row.schema_before,
        )
        await _enqueue(conn, lease)
    log.info("Deploy %d of %s failed in %s; untouched", lease.deploy, target.name, step)


async def stop_dry_run(lease: Lease) -> None:
    """Close a deploy that was to end with its rehearsal."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        await ledger.advance(conn, lease, "failed", schema_after=row.schema_before)


async def is_untouched(lease: Lease) -> bool:
    """Whether production is still as it was before this deploy, by the ledger."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        return (await ledger.deploy(conn, lease.deploy)).state in ledger.UNTOUCHED


async def roll_back(lease: Lease, failure: str) -> Rollback:
    """Take production back to before the deploy: code, schema, health.

    The old release comes first: it ran on the new schema during the deploy, while the new release
    was never meant for the old one. Raises Stranded when a part does not go back.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "roll_back", failure) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        step = row.failed_step or await ledger.failed_step(conn, lease.deploy)
        await ledger.advance(conn, lease, "rolling_back", failed_step=step, failure=failure)
        code_goes_back = _code_goes_back(row)
        back = await _old_release(conn, target, lease, row) if code_goes_back else None
        undone = await _old_schema(conn, target, lease, row)
        if back is None:
            # The same code, with connections that have not seen the other schema.
            back = await _old_release(conn, target, lease, row)
        verdict = await _health_after(conn, target, row, back)
        await ledger.advance(
            conn, lease, "rolled_back", schema_after=row.schema_before, guard_after=undone.guard
        )
        await _enqueue(conn, lease)
    return Rollback(undone=undone, restart=back, health=verdict)


def _code_goes_back(row: Deploy) -> bool:
    if row.previous is None or row.release is None:
        return False
    before, now = record.load(Instance, row.previous), record.load(Release, row.release)
    return before.directory != now.directory


async def _old_release(conn: Conn, target: Target, lease: Lease, row: Deploy) -> Restart | None:
    """Start the release from before again, unless it still runs."""
    if target.service is None or row.previous is None:
        return None
    before = record.load(Instance, row.previous)
    if before.is_visible and before.is_alive:
        return None
    running = await _running(conn, target)
    old = release.of(target, before)
    back = await service.restart(target, old, old=running, token=f"deploy-{lease.deploy}-rollback")
    await ledger.note(conn, lease, restart=record.dump(back))
    return back


async def _old_schema(conn: Conn, target: Target, lease: Lease, row: Deploy) -> Undone:
    expected = await ledger.load_catalogue(conn, _needed(row.schema_before, "schema"))
    steps = record.load(Rehearsal, row.rehearsal).migrations if row.rehearsal else ()
    return await rollback.reverse_migrations(target, lease, steps, expected)


async def _health_after(
    conn: Conn, target: Target, row: Deploy, back: Restart | None
) -> HealthVerdict | None:
    if target.service is None:
        return None
    serving = back.new if back else await _running(conn, target)
    if serving is None and row.previous is None:
        return None  # nothing served before either
    verdict = await health.check(target, serving)
    if verdict.verdict == "unhealthy":
        raise Stranded(
            f"The schema is back, and the service is still unhealthy: {verdict.summary} "
            f"Look at the service's log, then run: airlock rollback {target.name}"
        )
    return verdict


async def strand(lease: Lease, failure: str) -> None:
    """Record that the rollback failed as well; the deploy stays open for a person."""
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        await ledger.advance(conn, lease, "stranded", failure=failure)
        await _enqueue(conn, lease)


async def reopen(target: Target) -> tuple[Lease, Deploy]:
    """A lease on the last deploy, in order to undo it.

    Raises Refused when there is nothing that could be undone.
    """
    async with ledger.connection(target) as conn:
        for last in await ledger.recent(conn, limit=100):
            if last.state == "failed":
                continue  # it touched nothing, so the one before it stands
            if last.state == "rolled_back":
                break
            if last.state == "succeeded":
                await preview.undrifted(conn, target)
            return await ledger.take_over(conn, last), last
    raise Refused(
        f"There is no deploy of {target.name} to undo: the last one left nothing behind. "
        f"See: airlock history {target.name}"
    )


# ---------------------------------------------------------------- report and alerts


async def read_report(target: Target, number: int) -> report.DeployReport:
    """Everything the ledger knows of one deploy."""
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, number)
        return report.DeployReport(
            deploy=row,
            events=await ledger.events(conn, number),
            migrations=await ledger.migrations_of(conn, number),
            schema_before=await _catalogue(conn, row.schema_before),
            schema_expected=await _catalogue(conn, row.schema_expected),
            kept_rows=await conn.fetchval(
                "SELECT pg_catalog.count(*) FROM airlock.kept WHERE deploy = $1", number
            ),
        )


async def _catalogue(conn: Conn, fingerprint: str | None) -> Catalogue | None:
    return await ledger.load_catalogue(conn, fingerprint) if fingerprint else None


async def _enqueue(conn: Conn, lease: Lease) -> None:
    row = await ledger.deploy(conn, lease.deploy)
    kept = await conn.fetchval(
        "SELECT pg_catalog.count(*) FROM airlock.kept WHERE deploy = $1", lease.deploy
    )
    body = record.dump(report.compose_alert(row, kept_rows=kept))
    key = f"{row.target}-{row.id}-{row.state}-{lease.fence}"
    await ledger.enqueue_alert(conn, lease.deploy, key, body)


async def _request(conn: Conn, lease: Lease) -> DeployRequest:
    row = await ledger.deploy(conn, lease.deploy)
    return DeployRequest.model_validate_json(row.request)


def _needed(text: str | None, what: str) -> str:
    if text is None:
        raise Refused(f"The ledger has no {what} for this deploy; its earlier step did not finish.")
    return text
