"""One alert: what a person must know first, outcome in front.

``compose`` makes it from the ledger, ``routing`` says who hears of it, ``channels`` hands it over.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

State = Literal[
    "succeeded",
    "failed",
    "turned_down",
    "withdrawn",
    "rolling_back",
    "rolled_back",
    "undone",
    "stranded",
    "cut_off",
    "approval_wanted",
    "drift_found",
    "drift_gone",
    "schedules_late",
    "schedules_on_time",
]
Kind = Literal["deploy", "refresh", "drift", "schedules"]


def _is_here(host: str | None) -> bool:
    """Whether only this machine is meant."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


class NotTaken(Exception):
    """A channel answered, and did not take the alert. The message may be shown.

    is_final: it would say the same of this alert again, and may take another one.
    """

    def __init__(self, said: str, *, is_final: bool) -> None:
        super().__init__(said)
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One outcome, as it lies in the outbox.

    state: "turned_down" is a deploy that nobody approved or that a person ended before production,
        "withdrawn" a refused one of which nothing is left to deploy, "undone" a rollback that a
        person asked for, "cut_off" one that nobody works on any more.
    cancelled: a person asked the run to end.
    incident: what this alert opens, if it pages, and another one ends; empty in older outboxes,
        which had one for each target.
    resolves: an earlier alert was open, and this outcome ends it. ends: the incidents of those.
    detect_s, restore_s: from going live to the failure, from there to everything being back.
    code: the release in words, with what is not committed of it.
    ref: commit of the release, for those who know it by that.
    """

    headline: str
    target: str
    deploy: int | None  # None: about drift or schedules, which no deploy made
    state: State
    versions: str = ""
    failed_step: str = ""
    error: str = ""
    requester: str = ""
    reason: str = ""
    kept_rows: int = 0
    snapshot: str | None = None
    next_command: str = ""
    kind: Kind = "deploy"
    cancelled: bool = False
    incident: str = ""
    resolves: bool = False
    ends: tuple[str, ...] = ()
    at: datetime | None = None
    evidence: tuple[str, ...] = ()
    approval: str = ""
    detect_s: float | None = None
    restore_s: float | None = None
    run_url: str | None = None
    ref: str | None = None
    code: str = ""

    def seen_from(self, host: str | None) -> Alert:
        """The alert for readers on that host: a link to this machine leads them nowhere."""
        if self.run_url is None or _is_here(host) or not _is_here(urlsplit(self.run_url).hostname):
            return self
        return replace(self, run_url=None)

    @property
    def title(self) -> str:
        """The headline, and in front of it that this ends what an earlier alert began."""
        return f"RESOLVED – {self.headline}" if self.resolves else self.headline

    @property
    def event(self) -> str:
        """Its name as an event, such as ``airlock.deploy.rolled_back``."""
        return f"airlock.{self.kind}.{self.state.removeprefix(f'{self.kind}_')}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The alert as plain lines, the title first."""
        rows = [
            ("Target", self._what),
            ("When", f"{self.at:%Y-%m-%d %H:%M:%S} UTC" if self.at else ""),
            ("Failing step", self.failed_step),
            ("Error", self.error),
            ("Evidence", "\n".join(self.evidence)),
            ("Started by", " – ".join(part for part in (self.requester, self.reason) if part)),
            ("Code", self.code),
            ("Approval", self.approval),
            ("Time", self._times),
            ("Rows kept", f"{self.kept_rows:,} in airlock.kept" if self.kept_rows else ""),
            ("Snapshot", self.snapshot or ""),
            ("Run", self.run_url or ""),
            ("Next", self.next_command),
        ]
        return (self.title, *(f"{name}: {text}" for name, text in rows if text))

    @property
    def _what(self) -> str:
        parts = [
            self.target,
            f"migrations {self.versions}" if self.versions else "",
            f"{self.kind} {self.deploy}" if self.deploy else "",
        ]
        return ", ".join(part for part in parts if part)

    @property
    def _times(self) -> str:
        parts = [
            f"{self.detect_s:.1f} s to detect" if self.detect_s is not None else "",
            f"{self.restore_s:.1f} s to restore" if self.restore_s is not None else "",
        ]
        return ", ".join(part for part in parts if part)
