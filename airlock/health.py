"""Whether the new instance is well, said with evidence.

The verdict, exactly:

- *unhealthy*: it died; or it answered badly ``consecutive`` times in a row; or it answered badly
  even once after a good answer (flapping), or fell silent ``consecutive`` times after one; or a
  smoke endpoint or the frontend answered with another status than expected; or its log gained
  more than ``max_log_errors`` error lines; or the deadline came and any bad answer had been seen,
  or only another instance had answered.
- *inconclusive*: the deadline came, and nothing above was seen: only timeouts, names that did not
  resolve, networks that were not reached, or too little time for all the good answers needed.
- *healthy*: ``consecutive`` good answers in a row, every smoke endpoint and the frontend as
  expected, and nothing bad for ``bake_s`` after that.

A refused or closed connection is a bad answer: a kernel was reached and said that nobody serves.
An answer from another instance counts neither as good nor as bad.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from airlock.request import Gate
from airlock.service import Instance, ending, log, probe
from airlock.settings import HealthSettings, Smoke, Target

if TYPE_CHECKING:
    import httpx

Verdict = Literal["healthy", "unhealthy", "inconclusive"]
Sign = Literal["good", "bad", "silent", "other"]
LEFT_OUT = "left out on request"
# A process that ends closes its sockets first, and is gone a moment later.
_ENDING_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. ok: None means it was not, or nothing could be told."""

    name: str
    ok: bool | None
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthVerdict:
    """What was found. first_bad: the first bad sign, whatever the verdict."""

    verdict: Verdict
    summary: str
    evidence: tuple[Check, ...]
    seconds: float
    first_bad: str | None

    @property
    def is_healthy(self) -> bool:
        return self.verdict == "healthy"


@dataclass(slots=True, kw_only=True)
class Tally:
    """The answers of the health endpoint so far, and what they add up to."""

    consecutive: int
    good: int = 0
    bad: int = 0
    silent: int = 0
    other: int = 0
    streak: int = 0
    first_bad: str | None = None
    last: str = "never asked"
    _run: tuple[Sign, int] = ("good", 0)

    def add(self, sign: Sign, detail: str) -> str | None:
        """Count one answer. Returns why the service is unhealthy, once that is certain."""
        setattr(self, sign, getattr(self, sign) + 1)
        self._run = (sign, self._run[1] + 1 if sign == self._run[0] else 1)
        self.streak = self.streak + 1 if sign == "good" else 0
        self.last = detail
        if sign == "bad":
            self.first_bad = self.first_bad or detail
            if self.good:
                return f"it answered well {self.good} times and then badly: {detail}"
        if self._run[1] >= self.consecutive:
            if sign == "bad":
                return f"it answered badly {self._run[1]} times in a row: {detail}"
            if sign == "silent" and self.good:
                return (
                    f"it answered well {self.good} times and then {self._run[1]} times not at all"
                )
        return None

    def at_deadline(self) -> tuple[Verdict, str]:
        """The verdict when time is up and nothing was certain."""
        if self.first_bad:
            return "unhealthy", f"never {self.consecutive} good answers in a row: {self.first_bad}"
        if self.other and not self.good:
            return "unhealthy", f"only another instance answered, {self.other} times"
        return "inconclusive", f"time was up with {self}"

    def __str__(self) -> str:
        counts = f"{self.good} good, {self.bad} bad, {self.silent} without an answer"
        other = f", {self.other} from another instance" if self.other else ""
        return f"{counts}{other}; the last: {self.last}"


@dataclass(slots=True, kw_only=True)
class _Watch:
    """One check under way."""

    target: Target
    instance: Instance | None
    http: httpx.AsyncClient
    tally: Tally
    skip: Collection[Gate] = ()
    begun: float = field(default_factory=time.monotonic)
    evidence: list[Check] = field(default_factory=list[Check])
    identity: str = "not shown by the answers"
    log_errors: int = 0
    hung_up: bool = False

    @property
    def health(self) -> HealthSettings:
        return self.target.health

    @property
    def left_s(self) -> float:
        return self.health.deadline_s - (time.monotonic() - self.begun)

    def note(self, name: str, ok: bool | None, detail: str) -> None:
        """Keep one piece of evidence."""
        shown = log.mask(self.target, detail)
        self.evidence.append(Check(name=name, ok=ok, detail=shown, at=datetime.now(UTC)))


async def check(
    target: Target, instance: Instance | None, *, skip: Collection[Gate] = ()
) -> HealthVerdict:
    """Look at the service until it is certainly well or certainly not, deadline_s at most.

    instance: the one that should answer; None means that whichever answers will do.
    skip: what is left out on somebody's request; the evidence says so.
    """
    if not probe.public_url(target):
        at = datetime.now(UTC)
        nothing = Check(name="service", ok=None, detail="no service configured: not checked", at=at)
        return HealthVerdict(
            verdict="healthy",
            summary=nothing.detail,
            evidence=(nothing,),
            seconds=0,
            first_bad=None,
        )
    async with probe.client() as http:
        tally = Tally(consecutive=target.health.consecutive)
        watch = _Watch(target=target, instance=instance, http=http, tally=tally, skip=skip)
        try:
            async with asyncio.timeout(target.health.deadline_s):
                verdict, reason = await _decide(watch)
        except TimeoutError:
            verdict, reason = tally.at_deadline()
    return _verdict(watch, verdict, reason)


async def _decide(watch: _Watch) -> tuple[Verdict, str]:
    health, tally = watch.health, watch.tally
    baking_since: float | None = None
    while watch.left_s > 0:
        if problem := _dead(watch) or tally.add(*await _ask(watch)) or _log_problem(watch):
            # One that is dying refuses connections first: death explains it.
            return "unhealthy", await _dies(watch) or problem
        if baking_since is None and tally.streak >= health.consecutive:
            finished, problem = await _smoke(watch)
            if problem:
                return "unhealthy", await _dies(watch) or problem
            baking_since = time.monotonic() if finished else None
        if baking_since is not None and tally.streak:
            if "bake" in watch.skip:
                watch.note("bake", None, LEFT_OUT)
                return "healthy", f"{tally.good} good answers"
            baked_s = time.monotonic() - baking_since
            if baked_s >= health.bake_s:
                watch.note("bake", True, f"nothing bad for {baked_s:.1f} s more")
                return "healthy", f"{tally.good} good answers"
        await asyncio.sleep(max(0.0, min(health.interval_ms / 1000, watch.left_s)))
    return tally.at_deadline()


def _dead(watch: _Watch) -> str | None:
    instance = watch.instance
    if instance is None or not instance.is_visible or instance.is_alive:
        return None
    lines = log.tail(watch.target, instance.logs)
    return f"the new instance ({instance}) ended. Its last lines:\n{lines}"


async def _dies(watch: _Watch) -> str | None:
    """The same, with a moment's patience where the last connection was refused or closed."""
    until = time.monotonic() + (_ENDING_S if watch.hung_up else 0)
    while (said := _dead(watch)) is None and time.monotonic() < until:  # noqa: ASYNC110 – a clock
        await asyncio.sleep(0.01)
    return said


async def _ask(watch: _Watch) -> tuple[Sign, str]:
    """One answer of the health endpoint, and whose it was."""
    target, instance = watch.target, watch.instance
    timeout_s = watch.health.timeout_s
    if instance is None:
        answer = await probe.ask(watch.http, probe.public_url(target), timeout_s=timeout_s)
        return answer.kind, answer.detail
    answer = await probe.ask(
        watch.http,
        probe.public_url(target),
        timeout_s=timeout_s,
        family=(lambda: _pids(instance)) if instance.is_visible else None,
    )
    whose = answer.is_from(instance)
    if whose is False:
        return "other", f"{answer.detail}, from another instance ({answer.token or 'not named'})"
    if whose:
        named = answer.token is not None and instance.token is not None
        watch.identity = "named in the answers" if named else "accepted by its own process"
    elif answer.is_good and (own := probe.own_url(target, instance)):
        # Behind a proxy nobody can see whose answer it was; here only the new one can answer.
        watch.identity = "asked on its own address beside the public one"
        answer = await probe.ask(watch.http, own, timeout_s=timeout_s, host=_host(target))
    watch.hung_up = answer.closed
    return answer.kind, answer.detail


def _pids(instance: Instance) -> set[int]:
    return {process.pid for process in ending.family(instance)}


def _host(target: Target) -> str:
    return urlsplit(probe.public_url(target)).netloc.rpartition("@")[2]


async def _smoke(watch: _Watch) -> tuple[bool, str | None]:
    """Each smoke endpoint and the frontend once: whether all answered; the first wrong answer."""
    if "smoke" in watch.skip:
        watch.note("smoke", None, LEFT_OUT)
        return True, None
    finished = True
    before = len(watch.evidence)
    for name, url, smoke in _places(watch.target):
        expected = smoke.status if smoke else None
        answer = await probe.ask(
            watch.http,
            url,
            timeout_s=watch.health.timeout_s,
            status=expected,
            method=smoke.method if smoke else "GET",
        )
        watch.hung_up = answer.closed
        ok = {"good": True, "bad": False, "silent": None}[answer.kind]
        watch.note(name, ok, answer.detail)
        if ok is False:
            return False, f"{name}: {answer.detail}"
        finished = finished and ok is True
    if not finished:
        # Asked again in the next round: only the last time is evidence.
        seen = watch.evidence[before:]
        watch.tally.last = "; ".join(f"{c.name}: {c.detail}" for c in seen if not c.ok)
        del watch.evidence[before:]
    return finished, None


def _places(target: Target) -> Iterator[tuple[str, str, Smoke | None]]:
    parts = urlsplit(probe.public_url(target))
    for smoke in target.health.smoke:
        path = smoke.path if smoke.path.startswith("/") else f"/{smoke.path}"
        shown = path.partition("?")[0]
        yield f"smoke {smoke.method} {shown}", f"{parts.scheme}://{parts.netloc}{path}", smoke
    if frontend := target.health.frontend_url:
        yield f"frontend {probe.shown(frontend)}", frontend, None


def _log_problem(watch: _Watch) -> str | None:
    if "log_errors" in watch.skip:
        return None
    marks = watch.instance.logs if watch.instance else ()
    errors = [line for found in marks for line in log.error_lines(log.since(found))]
    watch.log_errors = len(errors)
    if len(errors) <= watch.health.max_log_errors:
        return None
    first = log.mask(watch.target, errors[0].strip())[:300]
    return (
        f"its log has {len(errors)} new error lines, {watch.health.max_log_errors} are allowed; "
        f"the first: {first}"
    )


def _verdict(watch: _Watch, verdict: Verdict, reason: str) -> HealthVerdict:
    tally, instance = watch.tally, watch.instance
    steady = tally.streak >= tally.consecutive or verdict == "healthy"
    ok = True if steady else (False if verdict == "unhealthy" else None)
    watch.note(f"health {probe.shown(probe.public_url(watch.target))}", ok, str(tally))
    if instance is None:
        watch.note("instance", None, "not known: whichever answered was taken")
    else:
        alive = instance.is_alive if instance.is_visible else None
        watch.note("instance", alive, f"{instance}; identity {watch.identity}")
        if instance.logs and "log_errors" in watch.skip:
            watch.note("log", None, LEFT_OUT)
        elif instance.logs:
            few = watch.log_errors <= watch.health.max_log_errors
            watch.note("log", few, f"{watch.log_errors} new error lines")
    shown = log.mask(watch.target, reason)
    return HealthVerdict(
        verdict=verdict,
        summary=shown,
        evidence=tuple(watch.evidence),
        seconds=round(time.monotonic() - watch.begun, 3),
        first_bad=tally.first_bad or (shown if verdict == "unhealthy" else None),
    )
