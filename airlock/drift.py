"""Drift: a live schema that is not the one which the last deploy left."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from airlock import catalogue, ledger, outbox
from airlock.catalogue import Json, SchemaDiff
from airlock.introspection import read_catalogue
from airlock.ledger import Deploy
from airlock.markdown import fenced, plain
from airlock.postgres import Conn
from airlock.settings import Target

LINES = 400

_WHAT_TO_DO = (
    "A deploy is refused as long as it is so. Take the change back; if it is wanted, put it into a "
    "migration after that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One target's schema, held against the ledger."""

    target: str
    deploy: int | None = None  # the one that left the expected schema
    found: SchemaDiff | None = None  # None: nothing was compared
    fingerprint: str | None = None  # of the live schema
    passed_over: str = ""  # why there was nothing to compare
    failure: str = ""  # why it could not be compared
    checked_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def drifted(self) -> bool:
        return self.found is not None and not self.found.is_empty

    @property
    def headline(self) -> str:
        """The finding in one line."""
        if self.failure:
            return f"NOT COMPARED – {self.target} could not be read"
        if self.found is None:
            return f"PASSED OVER – {self.target}: {self.passed_over}"
        if self.found.is_empty:
            return f"NO DRIFT – {self.target} is as deploy {self.deploy} left it"
        return f"DRIFT – {self._differs}"

    @property
    def _differs(self) -> str:
        count = len(self.found.objects) if self.found else 0
        objects = "1 object" if count == 1 else f"{count} objects"
        return f"{self.target} differs from deploy {self.deploy}: {objects}"

    @property
    def text(self) -> str:
        """The headline, and what is behind it."""
        if self.found is None or self.found.is_empty:
            return "\n".join(part for part in (self.headline, self.failure) if part)
        return f"{self.headline}\n{self.found.render(limit=LINES)}"

    @property
    def difference(self) -> str:
        """What differs, in lines. The first one names the live schema: another one is news."""
        lines = self.found.render(limit=LINES) if self.found else ""
        return f"The schema is now {(self.fingerprint or '')[:12]}:\n{lines}"

    def to_dict(self) -> dict[str, Json]:
        """The same as plain data for JSON."""
        return {
            "target": self.target,
            "headline": self.headline,
            "drifted": self.drifted if self.found else None,
            "deploy": self.deploy,
            "checked_at": self.checked_at.isoformat(),
            "difference": self.found.to_dict() if self.found else None,
            "failure": self.failure or None,
        }


async def look(target: Target) -> DriftReport:
    """Compare the whole live schema with the one that the last deploy left. Reads only.

    A target that was never deployed to, or whose deploy is under way, is passed over.
    Raises Transient or Refused when the database cannot be read.
    """
    async with ledger.connection(target) as conn:
        before = await ledger.recent(conn)
        if before and before[0].is_open:
            return DriftReport(target=target.name, passed_over=_under_way(before[0]))
        report = await _compare(conn, target)
        # A deploy that began meanwhile is what we may have seen of the schema.
        after = await ledger.recent(conn)
    if after != before:
        return DriftReport(target=target.name, passed_over=_under_way(after[0]))
    return report


async def _compare(conn: Conn, target: Target) -> DriftReport:
    seen = await ledger.last_seen(conn)
    if seen is None:
        return DriftReport(target=target.name, passed_over="nothing was deployed to it yet")
    expected = await ledger.load_catalogue(conn, seen.fingerprint)
    live = await read_catalogue(conn)
    return DriftReport(
        target=target.name,
        deploy=seen.deploy,
        found=catalogue.diff(expected, live),
        fingerprint=live.fingerprint,
    )


async def tell(target: Target, report: DriftReport, *, run_url: str | None = None) -> None:
    """Put into the outbox what is new: a drift, another one than before, or that it is gone."""
    if report.found is None:
        return
    async with ledger.connection(target) as conn:
        if report.drifted:
            await ledger.ensure(conn)
            await outbox.drift_found(
                conn, target, report.headline, report.difference, run_url=run_url
            )
        else:
            await outbox.drift_gone(conn, target, run_url=run_url)


def _under_way(last: Deploy) -> str:
    return f"deploy {last.id} is under way ({last.state})"


def markdown(report: DriftReport) -> str:
    """The finding as an artifact."""
    parts = [f"# {plain(report.headline)}", f"Looked at {report.checked_at:%Y-%m-%d %H:%M:%S} UTC."]
    if report.failure:
        parts.append(fenced(report.failure))
    if report.found is not None and report.drifted:
        parts += [
            "What is there and should not be (+), is missing (-), or is otherwise (~):",
            fenced(report.found.render(limit=LINES), "diff"),
            _WHAT_TO_DO,
        ]
    return "\n\n".join(parts) + "\n"
