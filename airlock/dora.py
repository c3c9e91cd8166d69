"""The four measures of delivery: how often, how long, how many fail, how soon it is mended.

https://dora.dev/guides/dora-metrics/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from xml.etree import ElementTree

from airlock import ledger, timeline
from airlock.ledger import Deploy, Outcome
from airlock.markdown import plain, table
from airlock.settings import Target
from airlock.timeline import Kind, duration

DAYS = 90
WEEKS = 13
_CHANGED = ("succeeded", "rolled_back", "stranded")
_BAR, _HIGH = 14, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One of the four: its value, and what exactly was counted."""

    name: str
    value: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.meaning})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dora:
    """The measures of one target over a window. None: there was nothing to measure.

    since: the beginning of the window, or the first deploy in it where the ledger is younger.
    changed: deploys that changed production, whether or not they went back.
    lead_from_commit: whether lead times begin at the release's commit or at the request.
    restored: failed deploys that were put right again; stranded ones are not.
    """

    since: datetime
    until: datetime
    changed: int
    failed: int
    lead_s: float | None
    lead_from_commit: bool
    leads: int
    restore_s: float | None
    restored: int

    @property
    def per_week(self) -> float:
        # A first deploy yesterday is no deploy a day.
        weeks = max(1.0, (self.until - self.since).total_seconds() / 604_800)
        return self.changed / weeks

    @property
    def failure_rate(self) -> float | None:
        return self.failed / self.changed if self.changed else None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The four, each with its definition."""
        days = max(1, round((self.until - self.since).total_seconds() / 86_400))
        start = "the release's commit, the first time that it was deployed"
        lead_start = start if self.lead_from_commit else "the request, as no release had a commit"
        rate = "none" if self.failure_rate is None else f"{self.failure_rate:.0%}"
        return (
            Measure(
                name="Deploy frequency",
                value=f"{self.per_week:.1f} per week",
                meaning=f"{_count(self.changed, 'deploy')} changed the target in the last "
                f"{_count(days, 'day')}",
            ),
            Measure(
                name="Lead time for changes",
                value="none" if self.lead_s is None else duration(self.lead_s),
                meaning=f"median of {self.leads}, from {lead_start}, to a healthy service",
            ),
            Measure(
                name="Change failure rate",
                value=rate,
                meaning=f"{self.failed} of {self.changed} were rolled back, by themselves or by "
                "hand, or stranded",
            ),
            Measure(
                name="Time to restore",
                value="none" if self.restore_s is None else duration(self.restore_s),
                meaning=f"median of {self.restored}, from the failure or the request to undo it, "
                "to everything being back",
            ),
        )

    def to_dict(self) -> dict[str, object]:
        """The same as plain data for JSON."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "deploys": self.changed,
            "deploys_per_week": round(self.per_week, 3),
            "lead_time_s": self.lead_s,
            "lead_time_from": "commit" if self.lead_from_commit else "request",
            "lead_times": self.leads,
            "failed": self.failed,
            "change_failure_rate": self.failure_rate,
            "time_to_restore_s": self.restore_s,
            "restored": self.restored,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The deploys of one target. recent: the newest first, with refreshes and dry runs."""

    target: str
    recent: tuple[Deploy, ...]
    outcomes: tuple[Outcome, ...]
    until: datetime

    @property
    def dora(self) -> Dora:
        return measure(self.outcomes, now=self.until)


async def read(target: Target, *, limit: int = 20) -> History:
    """The history of one target until now.

    limit: how many of the newest deploys; the measures count the whole window.
    """
    now = datetime.now(UTC)
    async with ledger.connection(target) as conn:
        return History(
            target=target.name,
            recent=await ledger.recent(conn, limit=limit),
            outcomes=await ledger.outcomes(conn, target.name, since=window(now)),
            until=now,
        )


def window(now: datetime) -> datetime:
    """Where the window begins that ends now."""
    return now - timedelta(days=DAYS)


def measure(outcomes: Sequence[Outcome], *, now: datetime) -> Dora:
    """The four measures of deploys since ``window(now)``, oldest first."""
    changed = [each for each in outcomes if each.state in _CHANGED]
    leads, from_commit = _lead_times(changed)
    restores = [
        (each.finished_at - each.failed_at).total_seconds()
        for each in changed
        if each.state == "rolled_back" and each.finished_at and each.failed_at
    ]
    return Dora(
        since=max(window(now), min((each.created_at for each in outcomes), default=now)),
        until=now,
        changed=len(changed),
        failed=sum(each.state != "succeeded" for each in changed),
        lead_s=median(leads) if leads else None,
        lead_from_commit=from_commit,
        leads=len(leads),
        restore_s=median(restores) if restores else None,
        restored=len(restores),
    )


def _lead_times(changed: Sequence[Outcome]) -> tuple[list[float], bool]:
    """From each commit to its first time live; from the requests where no commit is known."""
    seen: set[str] = set()
    commits: list[float] = []
    requests: list[float] = []
    for each in changed:
        if each.state != "succeeded" or each.finished_at is None:
            continue
        requests.append((each.finished_at - each.created_at).total_seconds())
        # Deployed once more, or gone back to, it is no new change.
        if each.committed_at and each.commit and each.commit not in seen:
            seen.add(each.commit)
            commits.append((each.finished_at - each.committed_at).total_seconds())
    return (commits, True) if commits else (requests, False)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


# ---------------------------------------------------------------- for people


def markdown(history: History) -> str:
    """The four measures, a bar for each week, and the last deploys."""
    measures = [(each.name, each.value, each.meaning) for each in history.dora.measures]
    rows = [
        (
            str(row.id),
            f"{row.created_at:%Y-%m-%d %H:%M}",
            plain(row.headline),
            plain(row.requester),
        )
        for row in history.recent
    ]
    picture = sparkline(history.outcomes, now=history.until)
    said = f"Deploys in each of the last {WEEKS} weeks, failed ones hatched"
    return "\n\n".join(
        [
            f"# Deploys of {history.target}",
            f"Until {history.until:%Y-%m-%d %H:%M} UTC.",
            table(("measure", "value", "counted"), measures),
            f"![{said}]({timeline.data_address(picture)})",
            f"{said}.",
            table(("", "began (UTC)", "outcome", "by"), rows) if rows else "None yet.",
        ]
    )


def sparkline(outcomes: Sequence[Outcome], *, now: datetime) -> str:
    """An SVG: one bar for each of the last weeks, oldest first, its failed part hatched on top."""
    weeks = [[0, 0] for _ in range(WEEKS)]
    for each in outcomes:
        ago = int((now - each.created_at).total_seconds() // 604_800)
        if each.state in _CHANGED and 0 <= ago < WEEKS:
            weeks[WEEKS - 1 - ago][each.state != "succeeded"] += 1
    most = max(1, *(good + bad for good, bad in weeks))
    svg = timeline.canvas(WEEKS * (_BAR + 4) + 12, _HIGH + 16, "Deploys in each week")
    for number, (good, bad) in enumerate(weeks):
        x, bottom = 8.0 + number * (_BAR + 4), 8.0 + _HIGH
        timeline.rect(svg, x, bottom, _BAR, 0.5, fill=timeline.LINE)
        parts: tuple[tuple[int, Kind], ...] = ((good, "done"), (bad, "failed"))
        for count, kind in parts:
            high = _HIGH * count / most
            bottom -= high
            if count:
                fill = timeline.FILLS[kind]
                timeline.rect(svg, x, bottom, _BAR, high, fill=fill, _class=kind)
    return ElementTree.tostring(svg, encoding="unicode")
