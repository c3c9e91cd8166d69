"""The steps of a deploy, each a function of (lease, ledger) that any machine can run or repeat.

What a step needs it reads from the ledger, and what an undo will need it leaves there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from airlock import (
    approval,
    client,
    health,
    ledger,
    lock_budget,
    lookout,
    outbox,
    postgres,
    preview,
    record,
    rehearsal,
    release,
    report,
    rollback,
    service,
    sessions,
    settings,
    snapshot,
)
from airlock.aftermath import Aftermath
from airlock.apply import Runner
from airlock.approval import Approval, Decision
from airlock.catalogue import Catalogue, SchemaDiff, diff
from airlock.errors import Broken, Refused, Stranded
from airlock.health import HealthVerdict
from airlock.introspection import read_catalogue, read_guard
from airlock.ledger import Deploy, Lease, State
from airlock.migration import Phase
from airlock.pairing import Cast
from airlock.plan import Plan
from airlock.postgres import Conn
from airlock.rehearsal import Rehearsal, RehearsedMigration, new_problems
from airlock.release import Release
from airlock.request import WORKING_TREE, DeployRequest
from airlock.rollback import Undone
from airlock.service import Instance, Restart
from airlock.service import log as service_log
from airlock.settings import Budget, Target
from airlock.snapshot import Snapshot
from airlock.throttle import Throttle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What stands in production after the apply."""

    migrations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What went back, and how the service is now."""

    undone: Undone
    after: Aftermath


# ---------------------------------------------------------------- plan


async def open_deploy(request: DeployRequest, *, flow_run: str | None = None) -> Lease | None:
    """Plan the request and open it in the ledger; None when there is nothing to do.

    flow_run: the run of Prefect that asks for it.
    """
    target = settings.target(request.target)
    if target.service is None and request.release:
        raise Refused(
            f"Target {target.name} has no service, so there is no release {request.release!r} to "
            f"start. Add [targets.{target.name}.service] to airlock.toml, or leave it out."
        )
    async with ledger.connection(target) as conn:
        if (begun := await ledger.begun(conn, request)) is not None:
            return begun
    planned, schema = await preview.look(target, request.up_to, request.skip)
    if not planned.migrations and request.release is None:
        log.info("Nothing to do on %s: it stands at %s", target.name, planned.head or "nothing")
        if request.up_to is None and not request.dry_run:
            await outbox.nothing_left(target, planned.head)
        return None
    async with ledger.connection(target) as conn:
        with postgres.translated("opening the deploy in the ledger"):
            await ledger.ensure(conn)
            if schema.catalogue is not None:
                await ledger.save_catalogue(conn, schema.catalogue)
            lease = await ledger.begin(conn, request, planned, flow_run=flow_run)
            drift = f"; drift left out on request:\n{schema.drift}" if schema.drift else ""
            await ledger.event(conn, lease, "plan_migrations", "done", planned.versions + drift)
    log.info("Opened deploy %d of %s: %s", lease.deploy, target.name, planned.versions)
    return lease


async def planned(lease: Lease) -> Plan:
    """The plan of an open deploy."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        return (await ledger.deploy(conn, lease.deploy)).planned


async def link_run(lease: Lease, flow_run: str, url: str | None) -> None:
    """Store which run of Prefect works on the deploy, and where it can be looked at."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        await ledger.note(conn, lease, flow_run=flow_run, run_url=url)


# ---------------------------------------------------------------- before production


async def prepare_release(lease: Lease) -> Release | None:
    """Check out and build the code that goes with the plan, before anything is touched."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "prepare_release") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        if row.release is not None and row.state not in ("planned", "snapshotted"):
            return record.load(Release, row.release)  # a tag may have moved since
        wanted = (await _request(conn, lease)).release
        chosen = await (release.check_out(target, wanted) if wanted else kept_release(conn, target))
        await ledger.note(conn, lease, release=record.dump(chosen))
    return chosen


async def kept_release(conn: Conn, target: Target) -> Release:
    """The code that serves now, or served last: what runs afterwards where no release is named.

    Raises Refused where neither is known.
    """
    served = await running_instance(conn, target) or await _last_started(conn)
    if served is None:
        raise Refused(
            f"The service of {target.name} does not run, and no deploy has started it yet, so it "
            f"is not known what is to run. Start it, or name its code: airlock deploy "
            f"{target.name} --release REF, or --release {WORKING_TREE} for the files that are in "
            f"{service.configured(target).directory}"
        )
    return await release.again(target, served)


async def take_snapshot(lease: Lease) -> Snapshot:
    """Back up the target, unless this deploy has a whole backup already."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "take_snapshot") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        if (known := await _known_snapshot(target, row)) is not None:
            return known
        taken = await snapshot.take(target, head=row.planned.head)
        await ledger.advance(conn, lease, "snapshotted", snapshot=record.dump(taken))
    return taken


async def _known_snapshot(target: Target, row: Deploy) -> Snapshot | None:
    """What an earlier runner of this deploy took, as long as it is needed and whole."""
    if row.snapshot is None or row.state == "planned":
        return None
    known = record.load(Snapshot, row.snapshot)
    if row.state in ledger.UNTOUCHED:
        try:
            await snapshot.verify(known, workers=target.snapshot.jobs)
        except Refused as error:
            log.info("Snapshot %s is taken anew: %s", known.id, error)
            return None
    return known


async def rehearse(lease: Lease) -> Rehearsal:
    """Run the plan on the restored snapshot, there and back and there again.

    Not if this deploy was rehearsed already. Raises Refused, the rehearsal in the ledger, where it
    kept others waiting for longer than the target allows.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "rehearse") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        skip = (await _request(conn, lease)).skip
        if row.state not in ("planned", "snapshotted"):
            rehearsed = _rehearsed(row, row.planned)
            if row.state in ledger.UNTOUCHED:
                lock_budget.check(target, rehearsed, skip=skip)
            return rehearsed
        source = record.load(Snapshot, _needed(row.snapshot, "snapshot"))
        await snapshot.check_origin(source, target, head=row.planned.head)
        cast = await _cast(conn, target, row)
        rehearsed, expanded, expected = await rehearsal.rehearse(
            target, lease, row.planned, source, cast
        )
        await ledger.save_catalogue(conn, expanded)
        fingerprint = await ledger.save_catalogue(conn, expected)
        await ledger.advance(
            conn,
            lease,
            "rehearsed",
            rehearsal=record.dump(rehearsed),
            schema_expected=fingerprint,
        )
        lock_budget.check(target, rehearsed, skip=skip)
    return rehearsed


async def _cast(conn: Conn, target: Target, row: Deploy) -> Cast:
    """The release that serves now, and the one that would."""
    if target.service is None or row.release is None:
        return Cast()
    try:
        running = await running_instance(conn, target)
    except Refused as error:
        # The restart says so, too, and what there is to do.
        return Cast(not_tried=str(error))
    request = record.load(DeployRequest, row.request)
    return Cast(running=running, new=record.load(Release, row.release), skip=request.skip)


# ---------------------------------------------------------------- a person's word


async def ask(lease: Lease) -> Approval:
    """The question about what was rehearsed, in the ledger; decided already where nobody is asked.

    A decision once written stands: it is returned, and not asked for again.
    """
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        rehearsed = _rehearsed(row, row.planned)
        known = _approval(row)
        if known and known.is_about(rehearsed):
            return known
        asked = await _question(conn, target, row, rehearsed, known)
        if asked.decision is not None:
            await ledger.advance(conn, lease, "approved", approval=record.dump(asked))
            return asked
        async with conn.transaction():
            await ledger.note(conn, lease, approval=record.dump(asked))
            await ledger.event(conn, lease, "approve", "intent", asked.required_because)
            await outbox.approval_wanted(conn, lease)
    log.info("Deploy %d of %s %s", lease.deploy, target.name, asked.sentence)
    return asked


async def _question(
    conn: Conn, target: Target, row: Deploy, rehearsed: Rehearsal, known: Approval | None
) -> Approval:
    before = await ledger.load_catalogue(conn, rehearsed.schema_before)
    expected = await ledger.load_catalogue(conn, _needed(row.schema_expected, "schema"))
    request = record.load(DeployRequest, row.request)
    because = approval.needed(target, request, rehearsed, diff(before, expected))
    meanwhile = ""
    if known is not None:
        shown = await ledger.load_catalogue(conn, known.schema_before)
        meanwhile = diff(shown, before).render()
        changed = "production's schema changed while it waited"
        because = f"{changed}; {because}" if because else changed
    policy = f"policy {target.approval.policy}"
    return Approval(
        required_because=because or policy,
        asked_at=datetime.now(UTC),
        schema_before=rehearsed.schema_before,
        checksums=rehearsed.checksums,
        decision=None if because else "not needed",
        meanwhile=meanwhile,
    )


async def decide(lease: Lease, decision: Decision, *, name: str = "", reason: str = "") -> Approval:
    """Write what a person decided, or that nobody did. A decision once written stands."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        asked = record.load(Approval, _needed(row.approval, "question"))
        if asked.decision is not None:
            return asked
        made = replace(
            asked, decision=decision, name=name, reason=reason, decided_at=datetime.now(UTC)
        )
        async with conn.transaction():
            if decision == "approved":
                await ledger.advance(conn, lease, "approved", approval=record.dump(made))
            else:
                await ledger.note(conn, lease, approval=record.dump(made))
            phase = "failed" if made.is_refusal else "done"
            await ledger.event(conn, lease, "approve", phase, made.sentence)
    log.info("Deploy %d of %s: %s", lease.deploy, lease.target, made.sentence)
    return made


async def plan_again(lease: Lease) -> bool:
    """Whether production's schema changed since the rehearsal; the plan is then for what is there.

    Whatever was approved is not what would happen now: it has to be rehearsed and asked again.
    """
    async with ledger.connection(settings.target(lease.target)) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        if _is_planned_again(row):
            return True  # an earlier try wrote it, and did not hear so
        if row.state not in ledger.UNTOUCHED:
            return False  # it is this deploy that has changed it
        rehearsed = _rehearsed(row, row.planned)
        found = await read_catalogue(conn)
        if found.fingerprint == rehearsed.schema_before:
            return False
        before = await ledger.load_catalogue(conn, rehearsed.schema_before)
        fingerprint = await ledger.save_catalogue(conn, found)
        anew = replace(row.planned, schema_before=fingerprint)
        async with conn.transaction():
            await ledger.advance(
                conn, lease, "planned", plan=record.dump(anew), schema_before=fingerprint
            )
            said = f"Planned again for a schema that changed:\n{diff(before, found).render()}"
            await ledger.event(conn, lease, "plan_migrations", "done", said)
    log.info("Deploy %d of %s: %s", lease.deploy, lease.target, said)
    return True


def _is_planned_again(row: Deploy) -> bool:
    return row.state == "planned" and row.rehearsal is not None


async def read_question(lease: Lease) -> str:
    """What a person reads before they decide, as markdown."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        rehearsed = _rehearsed(row, row.planned)
        before = await ledger.load_catalogue(conn, rehearsed.schema_before)
        expected = await ledger.load_catalogue(conn, _needed(row.schema_expected, "schema"))
    return approval.question(
        row,
        record.load(Approval, _needed(row.approval, "question")),
        rehearsed,
        record.load(Snapshot, _needed(row.snapshot, "snapshot")),
        diff(before, expected),
    )


async def asked(target: Target) -> tuple[int, str]:
    """The deploy that waits for a decision about a target, and its run.

    Raises Refused when none does, or when nobody is there to hear the answer.
    """
    async with ledger.connection(target) as conn:
        last = await ledger.last(conn)
        if last is not None and last.is_asked and last.flow_run:
            return last.id, last.flow_run
        if last is not None and last.is_cut_off:
            raise Refused(preview.unfinished(last))
    raise Refused(
        f"No deploy of {target.name} waits for a decision. See: airlock status {target.name}"
    )


async def is_decided(target: Target, number: int) -> bool:
    """Whether the runner of a deploy has written what was decided."""
    async with ledger.connection(target) as conn:
        known = _approval(await ledger.deploy(conn, number))
    return known is not None and known.decision is not None


async def check_lease(lease: Lease) -> None:
    """Raises LeaseLost when somebody has taken the deploy over."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        await ledger.check_fence(conn, lease)


def _approval(row: Deploy) -> Approval | None:
    return record.load(Approval, row.approval) if row.approval else None


# ---------------------------------------------------------------- production


async def apply_plan(lease: Lease) -> Applied:
    """Run the rehearsed plan on production, up to its contract; what is there is skipped."""
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "apply_plan") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        todo = row.planned
        # Past the apply an earlier runner of this deploy has done it all.
        if row.state in ledger.UNTOUCHED or row.state == "applying":
            rehearsed = _rehearsed(row, todo)
            _check_approved(row, rehearsed)
            await _check_schema(conn, lease, rehearsed)
            await run_plan(conn, lease, todo, "expand", rehearsed)
    return Applied(migrations=tuple(each.label for each in todo.of_phase("expand")))


async def apply_contract(lease: Lease) -> Applied:
    """Run the contract of the rehearsed plan, once the release that serves is known to be healthy.

    What the ledger already has is skipped.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "apply_contract") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        todo = row.planned
        if row.state != "contracted":
            rehearsed = _rehearsed(row, todo)
            _check_healthy(target, row)
            await _check_schema(conn, lease, rehearsed)
            await run_plan(conn, lease, todo, "contract", rehearsed)
    return Applied(migrations=tuple(each.label for each in todo.of_phase("contract")))


def _check_healthy(target: Target, row: Deploy) -> None:
    expected: State = "verified" if target.service is None else "healthy"
    if row.state not in (expected, "contracting"):
        raise Refused(
            f"Deploy {row.id} is {row.state}, and its contract waits until it is {expected}: what "
            f"serves now may need what the contract takes away. See: airlock status {row.target}"
        )


_STATES: Mapping[Phase, tuple[State, State]] = {
    "expand": ("applying", "applied"),
    "contract": ("contracting", "contracted"),
}


async def run_plan(
    conn: Conn,
    lease: Lease,
    todo: Plan,
    phase: Phase = "expand",
    rehearsed: Rehearsal | None = None,
) -> None:
    """Every migration of one phase, on a connection of its own. The apply without its checks.

    rehearsed: what it is held to; None where nothing is known of it.
    """
    target = settings.target(lease.target)
    lock_ms = (await _request(conn, lease)).lock_timeout_ms or target.budget.lock_timeout_ms
    budget = target.budget.model_copy(update={"lock_timeout_ms": lock_ms})
    begun, done = _STATES[phase]
    seen = rehearsed.migrations if rehearsed else ()
    await _look_out(conn, lease, todo, phase, seen, budget)
    await ledger.advance(conn, lease, begun)
    purpose = sessions.apply_name(lease)
    await sessions.end_earlier(conn, lease)
    rows = await ledger.migrations_of(conn, lease.deploy)
    async with postgres.connect(target.database_url, purpose=purpose, pinned=False) as production:
        runner = Runner(
            url=target.database_url,
            conn=production,
            lease=lease,
            budget=budget,
            throttle=Throttle(
                limits=target.backfill, stall_ms=partial(client.recent, target, lease.deploy)
            ),
            begun={row.version: row for row in rows},
            rehearsed={each.label: each.statements for each in seen},
        )
        for position, each in enumerate(todo.migrations, 1):
            if each.phase == phase:
                await runner.forward(each, position=position)
    await ledger.advance(conn, lease, done)


async def _look_out(
    conn: Conn,
    lease: Lease,
    todo: Plan,
    phase: Phase,
    seen: Sequence[RehearsedMigration],
    budget: Budget,
) -> None:
    row = await ledger.deploy(conn, lease.deploy)
    done = {each.label for each in await ledger.migrations_of(conn, lease.deploy)}
    left = {each.label for each in todo.of_phase(phase)} - done
    coming = [each for each in seen if each.label in left]
    may_stop = row.state in ledger.UNTOUCHED
    await lookout.before_apply(conn, lease, coming, may_stop=may_stop, budget=budget)


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


def _check_approved(row: Deploy, rehearsed: Rehearsal) -> None:
    """Raises Refused unless this rehearsal was approved, or the ledger says why it need not be."""
    known = _approval(row)
    if known is None or not known.is_about(rehearsed):
        said = "nobody was asked about this rehearsal"
    elif known.decision not in ("approved", "not needed"):
        said = known.sentence
    else:
        return
    raise Refused(
        f"Deploy {row.id} may not touch {row.target}: {said.rstrip('.')}. Start it again: "
        f"airlock deploy {row.target}"
    )


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
    """Hold production's catalogue against the rehearsed one. Raises Broken when they differ.

    The one of the phase that is there; half-way through the contract there is none.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "verify_schema") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        if row.state == "contracting":
            return SchemaDiff(added=(), removed=(), changed=(), notes={})
        expected = await ledger.load_catalogue(conn, _fingerprint(row))
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
        await _reach(conn, lease, row, "verified", guard_after=guard)
    return difference


def _fingerprint(row: Deploy) -> str:
    """Of the schema that the phase which is there has left."""
    wanted = _needed(row.schema_expected, "schema")
    if row.state == "contracted" or not row.planned.of_phase("contract"):
        return wanted
    done = len(row.planned.of_phase("expand"))
    rehearsed = _rehearsed(row, row.planned)
    return rehearsed.migrations[done - 1].schema_after if done else rehearsed.schema_before


async def _reach(
    conn: Conn, lease: Lease, row: Deploy, state: State, **columns: str | None
) -> None:
    """Advance to a state that comes before the contract; whoever is past it stays there."""
    if row.state in ledger.CONTRACT:
        await ledger.note(conn, lease, **columns)
    else:
        await ledger.advance(conn, lease, state, **columns)


async def restart_service(lease: Lease) -> Restart | None:
    """The new release up and ready before the old one drains; None without a service."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "restart_service") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        chosen = record.load(Release, _needed(row.release, "release"))
        running = await running_instance(conn, target)
        if row.previous is None and running is not None:
            # What an undo starts again, written before it is ended.
            await ledger.note(conn, lease, previous=record.dump(running))
        if row.kind == "deploy" and row.restart is None and not chosen.can_go_back:
            # A working tree may have changed while a person was asked.
            stays = (await _request(conn, lease)).release is None
            served = running or await _last_started(conn)
            since = served.started_at if served and stays else None
            chosen = await release.working_tree(chosen.directory, since=since)
            await ledger.note(conn, lease, release=record.dump(chosen))
        done = await service.restart(
            target, chosen, old=running, token=f"deploy-{lease.deploy}-forward"
        )
        await _reach(conn, lease, row, "restarted", restart=record.dump(done))
    return done


async def running_instance(conn: Conn, target: Target) -> Instance | None:
    """The instance that serves now: the one the ledger started last, or one started by hand."""
    return await service.find(target, await _last_started(conn))


async def _last_started(conn: Conn) -> Instance | None:
    restarts = (row.last_restart for row in await ledger.recent(conn, limit=20))
    return next((done.new for done in restarts if done is not None), None)


async def check_health(lease: Lease) -> HealthVerdict | None:
    """Whether the new instance answers well, and goes on doing so. Raises Broken when not."""
    target = settings.target(lease.target)
    if target.service is None:
        return None
    async with ledger.journal(target, lease, "check_health") as conn:
        row = await ledger.deploy(conn, lease.deploy)
        new = record.load(Restart, _needed(row.restart, "restart")).new
        skip = (await _request(conn, lease)).skip if row.kind == "deploy" else ()
        verdict = await health.check(target, new, skip=skip)
        if verdict.verdict != "healthy":
            await ledger.note(conn, lease, health=record.dump(verdict))
            which = "After its contract the" if row.state == "contracted" else "The"
            raise Broken(f"{which} new release is {verdict.verdict}: {verdict.summary}")
        await _reach(conn, lease, row, "healthy", health=record.dump(verdict))
    return verdict


# ---------------------------------------------------------------- the ends


async def succeed(lease: Lease) -> None:
    """Close a deploy that went well, and let go of old backups and releases."""
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        async with conn.transaction():
            await ledger.advance(
                conn, lease, "succeeded", schema_after=row.schema_expected or row.schema_before
            )
            await outbox.enqueue(conn, lease)
    try:
        await snapshot.retain(target)
    except Exception as error:  # noqa: BLE001 – the deploy went well, and would be rolled back
        # What is old may wait.
        log.warning("Old snapshots of %s were not removed: %s", target.name, error)
    log.info("Deploy %d of %s succeeded", lease.deploy, target.name)


async def fail(lease: Lease, failure: str, *, cancelled: bool = False) -> None:
    """Close a deploy that failed before production was touched.

    cancelled: a person asked the run to end.
    """
    target = settings.target(lease.target)
    async with ledger.connection(target) as conn:
        step = await ledger.failed_step(conn, lease.deploy)
        async with conn.transaction():
            # Without schema_after: what touched nothing does not say what the schema should be.
            await ledger.advance(conn, lease, "failed", failed_step=step, failure=failure)
            if cancelled:
                await ledger.event(conn, lease, ledger.CANCELLED, "done", failure)
            await outbox.enqueue(conn, lease)
    log.info("Deploy %d of %s failed in %s; untouched", lease.deploy, target.name, step)


async def stop_dry_run(lease: Lease) -> None:
    """Close a deploy that was to end with its rehearsal."""
    async with ledger.connection(settings.target(lease.target)) as conn:
        await ledger.advance(conn, lease, "failed")


async def read_state(lease: Lease) -> State:
    """How far the deploy has come, as the ledger says.

    Also for whoever did not hear the answer to what they wrote there: it may have arrived.
    Raises LeaseLost when somebody else has taken the deploy over.
    """
    async with ledger.connection(settings.target(lease.target)) as conn:
        await ledger.check_fence(conn, lease)
        return (await ledger.deploy(conn, lease.deploy)).state


async def start_rollback(lease: Lease, failure: str, *, cancelled: bool = False) -> None:
    """Write that the way back begins, so that people can hear of it while it is under way.

    cancelled: a person asked the run to end.
    """
    async with ledger.connection(settings.target(lease.target)) as conn:
        await going_back(conn, lease, failure, cancelled=cancelled)


async def going_back(conn: Conn, lease: Lease, failure: str, *, cancelled: bool = False) -> Deploy:
    """The deploy as its way back finds it. That it goes back is written and told, once."""
    row = await ledger.deploy(conn, lease.deploy)
    step = row.failed_step or await ledger.failed_step(conn, lease.deploy)
    async with conn.transaction():
        await ledger.advance(conn, lease, "rolling_back", failed_step=step, failure=failure)
        if cancelled:
            await ledger.event(conn, lease, ledger.CANCELLED, "done", failure)
        # Whoever asked for it knows.
        if not await ledger.was_reopened(conn, lease.deploy):
            await outbox.enqueue(conn, lease)
    return row


async def roll_back(lease: Lease, failure: str) -> Rollback:
    """Take production back to before the deploy: contract, code, schema, health.

    The old release comes before the schema that the expand left: it ran on that during the deploy,
    while the new release was never meant for the old one. On the contract it never ran, so that
    goes back before everything. Raises Stranded when a part does not go back.
    """
    target = settings.target(lease.target)
    async with ledger.journal(target, lease, "roll_back", failure) as conn:
        row = await going_back(conn, lease, failure)
        code_goes_back = _code_goes_back(row)
        contract = await _old_contract(target, lease, row) if code_goes_back else ()
        back = await _old_release(conn, target, lease, row) if code_goes_back else None
        undone = await _old_schema(conn, target, lease, row)
        undone = replace(undone, migrations=(*contract, *undone.migrations))
        if back is None:
            # The same code, with connections that have not seen the other schema.
            back = await _old_release(conn, target, lease, row)
        after = await _look_after(conn, target, lease, row, back)
        async with conn.transaction():
            await ledger.advance(
                conn, lease, "rolled_back", schema_after=row.schema_before, guard_after=undone.guard
            )
            await outbox.enqueue(conn, lease)
    return Rollback(undone=undone, after=after)


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
    # Beside it a new one may run, where the restart was stopped half-way.
    if before.is_visible and before.is_alive and service.is_alone(target, before):
        return None
    running = await running_instance(conn, target)
    old = release.of(target, before)
    back = await service.restart(target, old, old=running, token=f"deploy-{lease.deploy}-rollback")
    await ledger.note(conn, lease, aftermath=record.dump(Aftermath(restart=back)))
    return back


async def serve_again(conn: Conn, target: Target, lease: Lease) -> Aftermath:
    """The instance from before, started again where it has ended, and how it is.

    Raises Stranded when it is unhealthy.
    """
    row = await ledger.deploy(conn, lease.deploy)
    back = await _old_release(conn, target, lease, row)
    return await _look_after(conn, target, lease, row, back)


async def _old_contract(target: Target, lease: Lease, row: Deploy) -> tuple[str, ...]:
    """Undo the contract's part of the plan, as far as it is there; what was undone."""
    versions = {each.version for each in row.planned.of_phase("contract")}
    if not versions:
        return ()
    return await rollback.reverse_some(target, lease, _steps(row), versions)


async def _old_schema(conn: Conn, target: Target, lease: Lease, row: Deploy) -> Undone:
    expected = await ledger.load_catalogue(conn, _needed(row.schema_before, "schema"))
    return await rollback.reverse_migrations(target, lease, _steps(row), expected)


def _steps(row: Deploy) -> tuple[RehearsedMigration, ...]:
    return record.load(Rehearsal, row.rehearsal).migrations if row.rehearsal else ()


async def _look_after(
    conn: Conn, target: Target, lease: Lease, row: Deploy, back: Restart | None
) -> Aftermath:
    """How the service is after the way back, in the ledger before anything is made of it.

    Raises Stranded when it is unhealthy.
    """
    verdict = await _health_after(conn, target, row, back)
    after = Aftermath(restart=back or row.after.restart, health=verdict)
    await ledger.note(conn, lease, aftermath=record.dump(after))
    if verdict and verdict.verdict == "unhealthy":
        raise Stranded(
            f"The database is back, and the service is still unhealthy: {verdict.summary} "
            f"Look at the service's log, then run: airlock rollback {target.name}"
        )
    return after


async def _health_after(
    conn: Conn, target: Target, row: Deploy, back: Restart | None
) -> HealthVerdict | None:
    if target.service is None:
        return None
    serving = back.new if back else await running_instance(conn, target)
    if serving is None:
        # Nothing served before either, or it should serve.
        return await health.check(target, None) if row.previous is not None else None
    # What it said while things were bad is no news about how it is now; an earlier try of this way
    # back may have started it.
    now = replace(serving, logs=tuple(service_log.mark(each.path) for each in serving.logs))
    return await health.check(target, now)


async def strand(lease: Lease, failure: str) -> None:
    """Record that the rollback failed as well; the deploy stays open for a person."""
    target = settings.target(lease.target)
    service_now = await outbox.service_now(target)
    async with ledger.connection(target) as conn, conn.transaction():
        row = await ledger.deploy(conn, lease.deploy)
        after = record.dump(replace(row.after, service=service_now))
        await ledger.advance(conn, lease, "stranded", failure=failure, aftermath=after)
        await outbox.enqueue(conn, lease)


async def last_to_undo(conn: Conn, number: int | None = None) -> Deploy | None:
    """The last deploy that touched something, unless it was undone.

    One that a person has closed already is the last, too: who asks twice undoes one deploy.
    number: the deploy that they mean. Raises Refused when another one came after it.
    """
    for last in await ledger.recent(conn, limit=100):
        if last.state == "failed":
            if number is None and await ledger.was_reopened(conn, last.id):
                return None
            continue
        if number not in (None, last.id):
            raise Refused(
                f"Deploy {number} of {last.target} cannot be undone: the last one that touched "
                f"something is {last.id}, {last.state}. See: airlock history {last.target}"
            )
        return None if last.state == "rolled_back" else last
    return None


async def reopen(target: Target, number: int | None = None) -> tuple[Lease, Deploy]:
    """A lease on the last deploy, in order to undo it.

    number: see ``last_to_undo``. Raises Refused when there is nothing that could be undone.
    """
    async with ledger.connection(target) as conn:
        if (last := await last_to_undo(conn, number)) is not None:
            # Its outcome is told from an outbox of this version.
            await ledger.ensure(conn)
            if last.state == "succeeded" and last.kind == "deploy":
                await preview.undrifted(conn, target)
            lease = await sessions.take_over(conn, last)
            await ledger.event(conn, lease, ledger.REOPENED, "done", "a person asked for the undo")
            if last.is_open and last.state != "stranded" and not last.is_asked:
                await ledger.event(conn, lease, ledger.CUT_OFF, "done", f"it was {last.state}")
            return lease, last
    raise Refused(
        f"There is no deploy of {target.name} to undo: the last one left nothing behind. "
        f"See: airlock history {target.name}; to undo one from before it, name its number: "
        f"airlock rollback {target.name} NUMBER"
    )


# ---------------------------------------------------------------- report and alerts


async def read_report(target: Target, number: int) -> report.DeployReport:
    """Everything the ledger knows of one deploy."""
    async with ledger.connection(target) as conn:
        row = await ledger.deploy(conn, number)
        return report.DeployReport(
            deploy=row,
            went=await _went(conn, row),
            events=await ledger.events(conn, number),
            migrations=await ledger.migrations_of(conn, number),
            schema_before=await _catalogue(conn, row.schema_before),
            schema_expected=await _catalogue(conn, row.schema_expected),
            kept_rows=await conn.fetchval(
                "SELECT pg_catalog.count(*) FROM airlock.kept WHERE deploy = $1", number
            ),
            felt=await client.read(conn, number),
        )


async def _went(conn: Conn, row: Deploy) -> str:
    """Which code served before a deploy, as it was when it was started."""
    if row.previous is None:
        return ""
    before = record.load(Instance, row.previous)
    starter = await ledger.starter(conn, before, before=row.id)
    if starter is not None and starter.release is not None:
        return record.load(Release, starter.release).sentence
    return f"{before.release}, in {before.directory}"


async def _catalogue(conn: Conn, fingerprint: str | None) -> Catalogue | None:
    return await ledger.load_catalogue(conn, fingerprint) if fingerprint else None


async def _request(conn: Conn, lease: Lease) -> DeployRequest:
    row = await ledger.deploy(conn, lease.deploy)
    return record.load(DeployRequest, row.request)


def _needed(text: str | None, what: str) -> str:
    if text is None:
        raise Refused(f"The ledger has no {what} for this deploy; its earlier step did not finish.")
    return text
