"""The alert about one deploy, from what the ledger knows of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import cast

from airlock import ledger, postgres, record
from airlock.alert import Alert, Kind, State, routing
from airlock.health import HealthVerdict
from airlock.ledger import CANCELLED, REOPENED, Deploy, Event, Lease
from airlock.service import Release, log
from airlock.settings import Target
from airlock.snapshot import Snapshot

ERROR_LINES = 8
LINE_CHARACTERS = 500
EVIDENCE_LINES = 5

# What changes production, and the moment from which a failure could have been seen.
LIVE = (
    ("apply_plan", "intent"),
    ("apply_plan", "done"),
    ("swap_databases", "intent"),
    ("swap_databases", "done"),
    ("restart_service", "done"),
    ("apply_contract", "intent"),
    ("apply_contract", "done"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the ledger does not have in the deploy's row.

    open_incidents: of the target, with the states of the alerts that opened them.
    approval: who was asked and what they decided, in words.
    turned_down: that they said no, or nothing in time.
    """

    events: Sequence[Event]
    kept_rows: int
    open_incidents: Mapping[str, Collection[str]]
    approval: str = ""
    turned_down: bool = False


def compose(target: Target, row: Deploy, facts: Facts) -> Alert:
    """The alert about the outcome of one deploy."""
    state = _state(row, facts)
    detect_s, restore_s = times(row, facts.events)
    snapshot = record.load(Snapshot, row.snapshot) if row.snapshot else None
    release = record.load(Release, row.release) if row.release else None
    ends = routing.ended(state, facts.open_incidents) if _is_well(row.after.health) else ()
    alert = Alert(
        headline=row.headline,
        target=row.target,
        deploy=row.id,
        state=state,
        kind=row.kind,
        versions=row.planned.versions if row.plan else "",
        failed_step=row.failed_step or "",
        error=row.failure or "",
        requester=row.requester,
        reason=row.reason,
        kept_rows=facts.kept_rows,
        snapshot=snapshot.id if snapshot else None,
        next_command=row.next_command,
        # Where the service is not well afterwards, a person is needed.
        cancelled=was_cancelled(facts.events) and _is_well(row.after.health),
        resolves=bool(ends),
        ends=ends,
        at=row.finished_at or datetime.now(UTC),
        evidence=evidence(row) if row.failure else (),
        approval=facts.approval,
        detect_s=detect_s,
        restore_s=restore_s,
        run_url=row.run_url,
        ref=release.commit if release and not release.dirty else None,
        code=release.sentence if release else "",
    )
    return scrubbed(target, alert)


def bare(lease: Lease, state: ledger.State, kind: Kind = "deploy", *, why: str = "") -> Alert:
    """The alert that can always be made: the outcome, and no text from anywhere else.

    why: what kept the whole alert from being made, for the headline.
    """
    said = "ROLLBACK FAILED" if state == "stranded" else state.upper().replace("_", " ")
    return Alert(
        headline=f"{said} – {lease.target}, {kind} {lease.deploy}{f': {why}' if why else ''}",
        target=lease.target,
        deploy=lease.deploy,
        state=cast("State", state),
        kind=kind,
        at=datetime.now(UTC),
        next_command=f"airlock status {lease.target}, airlock report {lease.target}",
    )


def cut_off(target: Target, row: Deploy) -> Alert:
    """That a deploy is open, and that nobody has worked on it for longer than the target admits."""
    alert = Alert(
        headline=row.headline,
        target=row.target,
        deploy=row.id,
        state="cut_off",
        kind=row.kind,
        versions=row.planned.versions if row.plan else "",
        error=f"{row.holder} was last heard of {row.silent_s:.0f} s ago, and nothing took over.",
        requester=row.requester,
        reason=row.reason,
        at=datetime.now(UTC),
        run_url=row.run_url,
        next_command=row.next_command,
    )
    return scrubbed(target, alert)


def approval_wanted(target: Target, row: Deploy, approval: str) -> Alert:
    """That a deploy waits for a person, and where its rehearsal can be read.

    approval: why somebody is asked, in words.
    """
    versions = row.planned.versions
    release = record.load(Release, row.release) if row.release else None
    alert = Alert(
        headline=row.headline,
        target=row.target,
        deploy=row.id,
        state="approval_wanted",
        kind=row.kind,
        versions=versions,
        requester=row.requester,
        reason=row.reason,
        approval=approval,
        code=release.sentence if release else "",
        at=datetime.now(UTC),
        run_url=row.run_url,
        next_command=f"read the rehearsal, airlock approve {row.target} or airlock reject "
        f"{row.target}",
    )
    return scrubbed(target, alert)


def drift_found(target: Target, headline: str, difference: str, *, run_url: str | None) -> Alert:
    """That a target's schema is not its ledger's."""
    alert = Alert(
        headline=headline,
        target=target.name,
        deploy=None,
        kind="drift",
        state="drift_found",
        error=difference,
        at=datetime.now(UTC),
        run_url=run_url,
        next_command=f"airlock drift {target.name}; take the change back, or put it into a "
        "migration after that",
    )
    return scrubbed(target, alert)


def drift_gone(target: Target, *, ends: tuple[str, ...], run_url: str | None) -> Alert:
    """That it is again."""
    alert = Alert(
        headline=f"DRIFT GONE – {target.name} has the schema of its ledger again",
        target=target.name,
        deploy=None,
        kind="drift",
        state="drift_gone",
        resolves=bool(ends),
        ends=ends,
        at=datetime.now(UTC),
        run_url=run_url,
        next_command=f"airlock status {target.name}",
    )
    return scrubbed(target, alert)


def schedules_late(target: Target, problems: Sequence[str]) -> Alert:
    """That schedules of the Prefect server start nothing. problems: what is wrong, in words."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    alert = Alert(
        headline=f"SCHEDULES LATE – {problems[0]}{more}",
        target=target.name,
        deploy=None,
        kind="schedules",
        state="schedules_late",
        error="\n".join(problems),
        at=datetime.now(UTC),
        next_command="airlock status; then the logs of the Prefect server and its worker",
    )
    return scrubbed(target, alert)


def schedules_on_time(target: Target, *, ends: tuple[str, ...]) -> Alert:
    """That they do again."""
    return Alert(
        headline="SCHEDULES ON TIME – each has its next run and a worker that takes it",
        target=target.name,
        deploy=None,
        kind="schedules",
        state="schedules_on_time",
        resolves=bool(ends),
        ends=ends,
        at=datetime.now(UTC),
        next_command="airlock status",
    )


def withdrawn(
    target: Target, deploy: int | None, head: str | None, *, ends: tuple[str, ...]
) -> Alert:
    """That what was refused is not there any more, and nothing else to deploy."""
    stands = head or "an empty schema"
    return Alert(
        headline=f"WITHDRAWN – {target.name} has nothing left to deploy, still on {stands}",
        target=target.name,
        deploy=deploy,
        state="withdrawn",
        resolves=bool(ends),
        ends=ends,
        at=datetime.now(UTC),
        next_command=f"airlock status {target.name}",
    )


def scrubbed(target: Target, alert: Alert) -> Alert:
    """The alert with no secret of the target in what people and programs wrote into it.

    The headline is our own words: nothing in it is a secret, whatever a variable's value is.
    Nor is a row of its data, as a server's error may quote one. Before anything is cut off: half a
    secret would not be found.
    """
    return replace(
        alert,
        error=short(_cleared(target, alert.error)),
        requester=log.mask(target, alert.requester),
        reason=log.mask(target, alert.reason),
        approval=log.mask(target, alert.approval),
        code=log.mask(target, alert.code),
        evidence=tuple(short(_cleared(target, line)) for line in alert.evidence),
        run_url=log.mask(target, alert.run_url) if alert.run_url else None,
    )


def _cleared(target: Target, text: str) -> str:
    return log.mask(target, postgres.without_details(text))


def short(text: str) -> str:
    """The first line, which says what happened, and the last ones of what follows."""
    first, *rest = text.strip().splitlines() or [""]
    left_out = ["…"] if len(rest) > ERROR_LINES else []
    lines = [first, *left_out, *rest[-ERROR_LINES:]]
    most = LINE_CHARACTERS
    return "\n".join(line if len(line) <= most else f"{line[:most]}…" for line in lines)


def times(row: Deploy, events: Sequence[Event]) -> tuple[float | None, float | None]:
    """Seconds from going live to the failure, and from there until everything was back."""
    # Later than its last success: a step that went well at another try had not failed.
    ours = [e for e in events if e.step == row.failed_step and e.phase != "intent"]
    failures = list(takewhile(lambda e: e.phase == "failed", reversed(ours)))[::-1]
    live = [e for e in events if (e.step, e.phase) in LIVE]
    if not failures or not live or row.failure is None:
        return None, None
    failed_at = failures[0].at
    before = [event.at for event in live if event.at <= failed_at]
    detect_s = (failed_at - before[-1]).total_seconds() if before else None
    back = row.finished_at if row.state == "rolled_back" else None
    return detect_s, (back - failed_at).total_seconds() if back else None


def _state(row: Deploy, facts: Facts) -> State:
    if row.state == "failed" and (facts.turned_down or by_hand(facts.events)):
        return "turned_down"
    if row.state == "rolled_back" and by_hand(facts.events):
        return "undone"
    return cast("State", row.state)


def was_cancelled(events: Sequence[Event]) -> bool:
    """Whether a person asked the run to end: Ctrl-C, SIGTERM, or Cancel in the UI."""
    return any(event.step == CANCELLED for event in events)


def by_hand(events: Sequence[Event]) -> bool:
    """Whether a person took the deploy up again in order to end it."""
    return any(event.step == REOPENED for event in events)


def _is_well(health: HealthVerdict | None) -> bool:
    return health is None or health.is_healthy


def evidence(row: Deploy) -> tuple[str, ...]:
    """What the health check saw that made it say no."""
    if row.health is None:
        return ()
    verdict = record.load(HealthVerdict, row.health)
    if verdict.is_healthy:
        return ()
    bad = [f"{check.name}: {check.detail}" for check in verdict.evidence if check.ok is False]
    first = [f"first bad sign: {verdict.first_bad}"] if verdict.first_bad else []
    return tuple([*first, *bad][:EVIDENCE_LINES])
