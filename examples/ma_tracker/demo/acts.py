"""The plot: three deploys through Prefect, each with what it should come to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import httpx

from airlock import deploy as steps
from airlock import ledger
from airlock.errors import Transient
from airlock.ledger import Event
from airlock.postgres import Conn
from airlock.report import DeployReport
from examples.ma_tracker.demo import show, stage
from examples.ma_tracker.demo.show import Checklist, Step
from examples.ma_tracker.demo.stage import Stage, World
from examples.ma_tracker.traffic import Traffic, TrafficReport, Write

JOURNAL_S = 0.15
STATE_S = 0.6
DEADLINE_S = 300
CLIENTS = 4
REQUESTS_PER_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One deploy, and how it should end."""

    title: str
    story: tuple[str, ...]
    migration: str | None
    release: str
    outcome: str
    serving: str
    schema_version: int
    failing_step: str | None
    headline: str | None  # how the alert begins; None: there is none

    @property
    def changes_production(self) -> bool:
        return self.outcome == "Deployed"


ACTS = (
    Act(
        title="A good deploy",
        story=(
            "Migration 010 (trading halts) and release v2 go to production.",
            "Expected: deployed, and nobody who uses the service notices.",
        ),
        migration=None,
        release="v2",
        outcome="Deployed",
        serving="v2",
        schema_version=10,
        failing_step=None,
        headline=None,
    ),
    Act(
        title="A bad release",
        story=(
            "Migration 011 (risk scores) is fine. Its release v3 boots, and then answers 503.",
            "Expected: rolled back by itself to v2 and schema 010; no row is lost.",
        ),
        migration="011_deal_risk_scores.sql",
        release="v3",
        outcome="RolledBack",
        serving="v2",
        schema_version=10,
        failing_step="check_health",
        headline="*ROLLED BACK",
    ),
    Act(
        title="A bad migration",
        story=(
            "Another 011 (watchers), whose rollback notes forget one of its columns.",
            "Expected: refused at the rehearsal; production is never touched.",
        ),
        migration="011_deal_watchers.sql",
        release="v2",
        outcome="Refused",
        serving="v2",
        schema_version=10,
        failing_step="rehearse",
        headline="*REFUSED",
    ),
)

WORDS = {
    "prepare_release": "checking the release out",
    "take_snapshot": "backing production up",
    "rehearse": "restoring the backup; the plan there, back, and there again",
    "apply_plan": "the plan on production",
    "verify_schema": "production against the rehearsal",
    "restart_service": "new release up, then the old one drains",
    "check_health": "watching the new release",
    "roll_back": "old release, old schema, and healthy again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How an act went. wrong: what was not as it should be, in words."""

    act: Act
    outcome: str
    message: str
    seconds: float
    report: DeployReport | None
    traffic: TrafficReport
    lost: tuple[Write, ...]
    alerts: tuple[str, ...]
    after: World
    wrong: tuple[str, ...]


@dataclass(slots=True)
class Load:
    """Traffic without a pause, counted act by act."""

    base_url: str
    running: Traffic | None = None
    seed: int = 0

    async def next(self) -> TrafficReport | None:
        """What was seen since the last call. The next clients begin before these ones stop."""
        before = self.running
        self.seed += 1
        self.running = Traffic(
            self.base_url, clients=CLIENTS, requests_per_s=REQUESTS_PER_S, seed=self.seed
        )
        await self.running.start()
        return await before.stop() if before else None

    async def stop(self) -> TrafficReport | None:
        before, self.running = self.running, None
        return await before.stop() if before else None

    def line(self) -> str:
        """The numbers so far, for the live view."""
        if self.running is None:
            return ""
        seen = self.running.report()
        stall = max(seen.longest_read_s, seen.longest_write_s)
        return f"traffic  {seen.sent} requests, {seen.failed} failed, longest {stall:.2f} s"


async def play(act: Act, on: Stage, load: Load, checklist: Checklist) -> Played:
    """Start the deploy through Prefect, show its journal, and judge what has come of it."""
    if act.migration:
        stage.place_migration(act.migration)
    before, told = await on.world(), len(on.webhook.texts)
    began = time.monotonic()
    outcome, message, number = await _deploy(act, on, load, checklist)
    seconds = time.monotonic() - began
    seen = await load.next()
    assert seen is not None  # noqa: S101 - it has run since before the first act
    found = None if number is None else await steps.read_report(on.target, number)
    played = Played(
        act=act,
        outcome=outcome,
        message=message,
        seconds=seconds,
        report=found,
        traffic=seen,
        lost=await on.lost(seen.writes),
        alerts=tuple(on.webhook.texts[told:]),
        after=await on.world(),
        wrong=(),
    )
    return _judged(played, before)


async def _deploy(
    act: Act, on: Stage, load: Load, checklist: Checklist
) -> tuple[str, str, int | None]:
    parameters = {"release": act.release, "reason": act.title, "requester": "make demo"}
    journal = Journal(checklist)
    waiting = checklist.begin("Prefect's worker takes the run", "start")
    async with stage.client(on) as http, ledger.connection(on.target) as conn:
        newest = await ledger.recent(conn)
        journal.after = newest[0].id if newest else 0
        run = await stage.start_run(http, parameters)
        ended = asyncio.create_task(_end_of(http, run, on))
        try:
            while not ended.done():
                await journal.read(conn)
                if journal.deploy and waiting.state == "runs":
                    waiting.end("done")
                checklist.footer = show.dim(load.line())
                await asyncio.wait({ended}, timeout=JOURNAL_S)
        finally:
            ended.cancel()
        if waiting.state == "runs":
            waiting.end("done")
        await journal.read(conn)
        outcome, message = await ended
    return outcome, message, journal.deploy


async def _end_of(http: httpx.AsyncClient, run: str, on: Stage) -> tuple[str, str]:
    """Name and message of the state in which the flow run ends."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if (ended := await stage.final_state(http, run)) is not None:
            return ended
        stage.check_alive(on)
        await asyncio.sleep(STATE_S)
    raise Transient(f"The flow run did not end within {DEADLINE_S} s.")


@dataclass(slots=True)
class Journal:
    """The ledger's journal of the deploy that is running, line by line into a checklist."""

    checklist: Checklist
    after: int = 0
    deploy: int | None = None
    seen: int = 0
    running: dict[str, tuple[Step, Event]] = field(default_factory=dict)

    async def read(self, conn: Conn) -> None:
        """Show what was written since the last call."""
        if self.deploy is None:
            newest = await ledger.recent(conn)
            if not newest or newest[0].id <= self.after:
                return
            self.deploy = newest[0].id
        events = await ledger.events(conn, self.deploy)
        for event in events[self.seen :]:
            self._add(event)
        self.seen = len(events)

    def _add(self, event: Event) -> None:
        if event.phase == "intent":
            step = self.checklist.begin(WORDS.get(event.step, ""), event.step)
            self.running[event.step] = step, event
        elif event.step in self.running:
            step, intent = self.running.pop(event.step)
            step.end(event.phase, (event.at - intent.at).total_seconds())


# ---------------------------------------------------------------- judging


def _judged(played: Played, before: World) -> Played:
    wrong = [*_outcome(played), *_world(played, before), *_people(played)]
    return Played(
        **{name: getattr(played, name) for name in Played.__slots__ if name != "wrong"},
        wrong=tuple(wrong),
    )


def _outcome(played: Played) -> list[str]:
    act, wrong = played.act, list[str]()
    if played.outcome != act.outcome:
        wrong.append(f"it ended {played.outcome}, expected {act.outcome}: {played.message}")
    if played.report is None:
        return [*wrong, "the ledger has no deploy"]
    failed = played.report.deploy.failed_step
    if failed != act.failing_step:
        wrong.append(f"the failing step is {failed or 'none'}, expected {act.failing_step}")
    return wrong


def _world(played: Played, before: World) -> list[str]:
    act, after, wrong = played.act, played.after, list[str]()
    serving = after.health.get("release"), after.health.get("schema_version")
    if serving != (act.serving, act.schema_version):
        wrong.append(
            f"release {serving[0]} serves on schema {serving[1]}, "
            f"expected {act.serving} on {act.schema_version}"
        )
    expected = before.schema
    if act.changes_production and played.report and played.report.schema_expected:
        expected = played.report.schema_expected
    if after.schema.fingerprint != expected.fingerprint:
        wrong.append("production's schema is not the expected one")
    if not act.changes_production and after.applied != before.applied:
        wrong.append("the ledger's list of applied migrations has changed")
    if act.outcome == "Refused" and after.health.get("pid") != before.health.get("pid"):
        wrong.append("the service was restarted, though production should not have been touched")
    return wrong


def _people(played: Played) -> list[str]:
    act, wrong = played.act, list[str]()
    if not played.traffic.writes:
        wrong.append("no row was written meanwhile")
    if played.lost:
        wrong.append(f"{len(played.lost)} of {len(played.traffic.writes)} written rows are lost")
    felt = played.report.felt if played.report else None
    if act.changes_production and (felt is None or not felt.requests):
        wrong.append("what clients felt was not measured")
    elif act.changes_production and felt and felt.failed:
        wrong.append(f"{felt.failed} of {felt.requests} requests of the probe failed")
    if act.headline is None and played.alerts:
        wrong.append(f"an alert arrived: {played.alerts[0]}")
    if act.headline and not any(text.startswith(act.headline) for text in played.alerts):
        wrong.append(f"no alert arrived that begins with {act.headline.strip('*')}")
    return wrong


def headline(played: Played) -> str:
    """The outcome in one line."""
    if played.report is None:
        return f"{played.outcome}: {played.message}"
    return played.report.deploy.headline
