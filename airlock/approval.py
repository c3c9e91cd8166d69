"""Whether a person reads the rehearsal before production is touched, and what they decide."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from airlock import record
from airlock.catalogue import SchemaDiff
from airlock.effects import Effect
from airlock.errors import Refused
from airlock.ledger import Deploy
from airlock.markdown import fenced, plain
from airlock.migration import Migration
from airlock.rehearsal import Rehearsal
from airlock.request import DeployRequest, Gate
from airlock.service import Release
from airlock.settings import Target
from airlock.snapshot import Snapshot

Decision = Literal["not needed", "approved", "rejected", "expired"]

# Catalogue objects that a service speaks to; an index that goes breaks nobody.
CONTRACT = (
    "table ",
    "foreign table ",
    "column ",
    "view ",
    "materialized view ",
    "sequence ",
    "function ",
    "procedure ",
    "aggregate ",
    "composite type ",
    "enum ",
    "domain ",
)
NAMED = 3
# The form stands below the question; the artifact has all of it.
DIFF_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The question put to a person, and the answer. It is about one rehearsal, and no other."""

    required_because: str  # not needed: why not
    asked_at: datetime
    schema_before: str
    checksums: tuple[str, ...]
    decision: Decision | None = None  # None: nobody has decided yet
    name: str = ""
    reason: str = ""
    decided_at: datetime | None = None
    meanwhile: str = ""  # how production's schema changed while an earlier question waited

    def is_about(self, rehearsal: Rehearsal) -> bool:
        """Whether the rehearsal is the one that was shown."""
        shown = self.schema_before, self.checksums
        return shown == (rehearsal.schema_before, rehearsal.checksums)

    @property
    def is_refusal(self) -> bool:
        return self.decision in ("rejected", "expired")

    @property
    def sentence(self) -> str:
        """The decision in words, for reports and messages."""
        match self.decision:
            case "not needed":
                return f"not needed: {self.required_because}"
            case "expired":
                return f"Nobody decided within {self._waited}. Asked because {self._because}"
            case None:
                return f"waits since {self.asked_at:%Y-%m-%d %H:%M} UTC, because {self._because}"
            case decision:
                why = f": {self.reason}" if self.reason else ""
                return f"{decision.title()} by {self.name}{why}"

    @property
    def _because(self) -> str:
        return self.required_because.rstrip(".") + "."

    @property
    def _waited(self) -> str:
        seconds = (self.decided_at - self.asked_at).total_seconds() if self.decided_at else 0
        return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def check_reason(target: Target, reason: str, *, skip: Collection[Gate] = ()) -> None:
    """Raises Refused where a reason has to be given and is not."""
    if reason.strip():
        return
    if skip:
        raise Refused(
            f"To leave out {', '.join(skip)} on {target.name} a reason is needed, and none was "
            "given. Say why: it stands in the ledger and in the report."
        )
    if target.require_reason:
        raise Refused(
            f"Target {target.name} requires a reason, and none was given. Say why: it stands in "
            "the ledger and in the report."
        )


def needed(
    target: Target, request: DeployRequest, rehearsal: Rehearsal, difference: SchemaDiff
) -> str | None:
    """Why a person is asked; None where nobody is.

    difference: from production's schema to the rehearsed one.
    """
    because: list[str] = []
    if target.approval.policy == "always":
        because.append(f"{target.name} always asks")
    if request.ask:
        because.append("whoever started it wanted to be asked")
    # A person who is asked anyway is told of these as well.
    if because or target.approval.policy == "lossy-or-blocking":
        because += _losses(rehearsal, difference)
        lock_ms = request.lock_timeout_ms or target.budget.lock_timeout_ms
        because += _named("it keeps others waiting", blocking(rehearsal, lock_ms))
    return "; ".join(because) or None


def _losses(rehearsal: Rehearsal, difference: SchemaDiff) -> Iterator[str]:
    if rehearsal.verdict != "exact":
        yield f"the way back is {rehearsal.rollback_sentence}"
    gone = [key for key in difference.removed if key.startswith(CONTRACT)]
    gone += [
        f"{change.key} ({change.attribute})"
        for change in difference.changed
        if change.key.startswith("column ") and change.attribute == "type"
    ]
    # A table that goes names itself before its columns.
    gone.sort(key=lambda key: (not key.startswith("table "), key))
    yield from _named("it takes away or changes what a service may use", gone)


def blocking(rehearsal: Rehearsal, lock_ms: int) -> list[str]:
    """What kept others waiting on the clone: each statement and relation, in words.

    A lock that blocks reads or writes, held for longer than the lock budget or while a table that
    was there before is rewritten or scanned.
    """
    return [
        f"{each.statement}: {effect.relation} {effect.lock_name} for {_held(effect)}"
        for migration in rehearsal.migrations
        for each in migration.statements
        for effect in each.effects
        if _blocks(effect, lock_ms)
    ]


def _blocks(effect: Effect, lock_ms: int) -> bool:
    if not effect.blocks_writes:
        return False
    return bool(effect.rewrites or effect.scans) or (effect.held_s or 0) * 1000 > lock_ms


def _held(effect: Effect) -> str:
    how = ["rewritten"] * bool(effect.rewrites) + ["scanned"] * bool(effect.scans)
    return ", ".join([f"{(effect.held_s or 0) * 1000:.0f} ms", *how])


def _named(what: str, found: list[str]) -> Iterator[str]:
    if found:
        rest = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        yield f"{what}: {', '.join(found[:NAMED])}{rest}"


# ---------------------------------------------------------------- the question


def question(
    row: Deploy, asked: Approval, rehearsal: Rehearsal, snapshot: Snapshot, difference: SchemaDiff
) -> str:
    """What a person reads before they decide, as markdown."""
    wanted = " – ".join(part for part in (row.requester, row.reason) if part)
    started = f"Deploy {row.id}, started by {wanted}" if wanted else f"Deploy {row.id}"
    age_min = (asked.asked_at - snapshot.created_at).total_seconds() / 60
    forward_s = sum(each.seconds for each in rehearsal.migrations)
    back_s = sum(each.reverse_seconds for each in rehearsal.migrations)
    release = record.load(Release, row.release) if row.release else None
    facts = [
        *map(_said, row.planned.migrations),
        *([f"Code: {release.sentence}"] if release else []),
        f"On the clone: {forward_s:.2f} s forwards, {back_s:.2f} s back",
        f"Way back, rehearsed: {rehearsal.rollback_sentence}",
        f"Snapshot: {snapshot.id}, {age_min:.0f} min old, proved by the rehearsal",
        *_waits(blocking(rehearsal, lock_ms=0)),
        *(f"On the clone, {each}" for each in rehearsal.releases.sentences),
    ]
    lines = [
        f"## {plain(row.target)} waits for your decision on {row.planned.versions}",
        "The form is below this text, and rejects unless you choose approve.",
        "",
        f"{plain(started)}. **You are asked because** {plain(asked.required_because)}.",
        "",
        *(f"- {plain(each)}" for each in facts),
    ]
    if asked.meanwhile:
        lines += ["", "Changed in production while you were asked before:"]
        lines += ["", fenced(asked.meanwhile, "diff")]
    if not difference.is_empty:
        lines += ["", "What it changes:", "", fenced(difference.render(limit=DIFF_LINES), "diff")]
    return "\n".join(lines)


def _said(each: Migration) -> str:
    when = " (contract: after the new release is healthy)" if each.phase == "contract" else ""
    return f"{each.label}: {each.purpose or each.title}{when}"


def _waits(found: list[str]) -> Iterator[str]:
    for each in found[:NAMED]:
        yield f"Keeps others waiting: {each}"
    if len(found) > NAMED:
        yield f"Keeps others waiting as well: {len(found) - NAMED} more"
