"""The outbox: what people must hear, put into the ledger first and delivered afterwards.

At least once: a deliverer that is killed between sending and writing so leaves the alert to the
next one. Each channel is served by itself, so one that is down holds up no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

from airlock import ledger, metrics, record, settings
from airlock.alert import (
    Alert,
    Kind,
    NotTaken,
    channels,
    compose,
    email,
    letters,
    pagerduty,
    routing,
)
from airlock.alert.compose import Facts
from airlock.alert.letters import Letter
from airlock.approval import Approval
from airlock.errors import Refused, Transient
from airlock.ledger import Delivery, Deploy, Lease, QueuedAlert
from airlock.postgres import Conn
from airlock.service import probe
from airlock.settings import Target

log = logging.getLogger(__name__)

# One alert on one channel, with all its requests. A mail server may look into a mail, or at who
# brings it, before it answers.
SEND_S = 10.0
MAIL_S = email.TIMEOUT_S
# One channel in one pass.
PASS_S = 30.0
# One target in the loop: longer than a pass, however slow its database is.
TARGET_S = 120.0

Ending = Literal["taken", "refused", "later", "silent"]


# ---------------------------------------------------------------- in


async def enqueue(conn: Conn, lease: Lease) -> None:
    """Put the outcome of a deploy into the outbox, in the transaction that writes the outcome."""
    async with _harmless(conn, lease):
        row = await ledger.deploy(conn, lease.deploy)
        alert = compose.bare(lease, row.state, row.kind)
        try:
            async with conn.transaction():
                alert = await _composed(conn, row)
        except Exception as error:  # noqa: BLE001 – people must hear of the outcome at least
            log.warning("The alert about deploy %d is bare: %s", row.id, type(error).__name__)
        await _put(conn, f"{row.target}-{row.id}-{row.state}-{lease.fence}", alert)


async def _put(conn: Conn, key: str, alert: Alert) -> None:
    await ledger.enqueue_alert(conn, alert.deploy, key, record.dump(routing.filed(alert)))


@asynccontextmanager
async def _harmless(conn: Conn, lease: Lease) -> AsyncGenerator[None]:
    """Whatever goes wrong within is undone and logged: a deploy does not fail over its alert."""
    try:
        async with conn.transaction():
            yield
    except Exception as error:  # noqa: BLE001 – see above
        log.warning("There is no alert about deploy %d: %s", lease.deploy, type(error).__name__)


async def _composed(conn: Conn, row: Deploy) -> Alert:
    asked = _approval(row)
    events = await ledger.events(conn, row.id)
    facts = Facts(
        events=events,
        kept_rows=await conn.fetchval(
            "SELECT pg_catalog.count(*) FROM airlock.kept WHERE deploy = $1", row.id
        ),
        open_incidents=await _open_incidents_of(conn, row),
        approval=asked.sentence if asked else "",
        turned_down=asked is not None and asked.is_refusal,
    )
    return compose.compose(settings.target(row.target), row, facts)


async def _open_incidents_of(conn: Conn, row: Deploy) -> Mapping[str, Collection[str]]:
    found = await _open_incidents(conn, row.target)
    # Whoever was called past the outbox is not in it: for this deploy, or for an earlier one.
    earlier = {alert.deploy for alert in (await _open(conn, row.target)).values() if alert.deploy}
    for deploy in await ledger.cut_off_among(conn, {row.id, *earlier}):
        found.setdefault(routing.incident(row.target, deploy, "stranded"), {"stranded"})
    return found


async def _open_incidents(conn: Conn, target: str) -> dict[str, set[str]]:
    """By what PagerDuty knows them, with the states of the alerts in each."""
    found: dict[str, set[str]] = {}
    for alert in (await _open(conn, target)).values():
        (incident,) = pagerduty.incidents(alert)
        found.setdefault(incident, set()).add(alert.state)
    return found


async def _open(conn: Conn, target: str) -> Mapping[int, Alert]:
    """The alerts that page and that nothing has ended yet, by their number."""
    queued = letters.readable(await ledger.open_alerts(conn, target, routing.FAILURES))
    return {each.id: alert for each, alert in queued.items() if routing.page(alert)}


def _approval(row: Deploy) -> Approval | None:
    """The question and its answer, where a person was asked."""
    found = record.load(Approval, row.approval) if row.approval else None
    return found if found and found.decision != "not needed" else None


async def service_now(target: Target) -> str:
    """How the service answers one question, in words for a headline."""
    if target.service is None:
        return "the database needs a person"
    try:
        async with probe.client() as http:
            url, timeout_s = probe.public_url(target), target.health.timeout_s
            answer = await probe.ask(http, url, timeout_s=timeout_s)
    except Exception:  # noqa: BLE001 – a person must hear that they are needed, whatever this says
        return "nobody knows how the service is"
    said = {"good": "service answers", "bad": "service down", "silent": "service not reached"}
    return said[answer.kind]


async def approval_wanted(conn: Conn, lease: Lease) -> None:
    """Tell people that a deploy waits for one of them; once for each rehearsal."""
    async with _harmless(conn, lease):
        row = await ledger.deploy(conn, lease.deploy)
        asked = _approval(row)
        why = asked.sentence if asked else ""
        alert = compose.approval_wanted(settings.target(lease.target), row, why)
        key = f"{row.target}-{row.id}-approval-{_digest(row.rehearsal or '')}"
        await _put(conn, key, alert)


async def dead_man(conn: Conn, target: Target) -> None:
    """Tell people that a deploy is open and silent, once for each of its runners."""
    row = await ledger.last(conn)
    if row is not None and row.is_cut_off and row.silent_s > target.alerts.silent_s:
        key = f"{row.target}-{row.id}-cut_off-{row.fence}"
        await _put(conn, key, compose.cut_off(target, row))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


async def drift_found(
    conn: Conn, target: Target, headline: str, difference: str, *, run_url: str | None = None
) -> bool:
    """Tell people that the schema is not the ledger's; whether that was news."""
    last = await ledger.last_alert(conn, target.name, "drift")
    known = letters.read(last) if last else None
    alert = compose.drift_found(target, headline, difference, run_url=run_url)
    is_open = last is not None and last.id in await _open(conn, target.name)
    if known and is_open and (known.state, known.error) == (alert.state, alert.error):
        return False
    return await _put_after(conn, alert, last)


async def drift_gone(conn: Conn, target: Target, *, run_url: str | None = None) -> bool:
    """Tell people that the schema is the ledger's again; whether that was news."""
    last = await ledger.last_alert(conn, target.name, "drift")
    known = letters.read(last) if last else None
    if last is None or known is None or known.state == "drift_gone":
        return False
    ends = routing.ended("drift_gone", await _open_incidents(conn, target.name))
    return await _put_after(conn, compose.drift_gone(target, ends=ends, run_url=run_url), last)


async def schedules_looked_at(problems: Sequence[str]) -> bool:
    """Tell people that schedules start nothing, or that they do again; whether that was news.

    problems: what is wrong with the Prefect server's schedules, in words; none where all is well.
    They are of no target alone, so the first one of airlock.toml that has a ledger tells of them.
    """
    for target in settings.load().targets.values():
        try:
            async with ledger.connection(target) as conn:
                if await ledger.version(conn) >= ledger.WITH_DELIVERIES:
                    return await _tell_of_schedules(conn, target, problems)
        except (Refused, Transient):
            continue  # not set up here, or away: the next one
    return False


async def _tell_of_schedules(conn: Conn, target: Target, problems: Sequence[str]) -> bool:
    last = await ledger.last_alert(conn, target.name, "schedules")
    known = letters.read(last) if last else None
    is_late = known is not None and known.state == "schedules_late"
    if is_late == bool(problems):
        return False
    if problems:
        return await _put_after(conn, compose.schedules_late(target, problems), last)
    ends = routing.ended("schedules_on_time", await _open_incidents(conn, target.name))
    return await _put_after(conn, compose.schedules_on_time(target, ends=ends), last)


async def nothing_left(target: Target, head: str | None) -> bool:
    """Tell people that a refused deploy is out of the world, if that is what they heard last.

    head: what the target stands at. Returns whether that was news.
    """
    async with ledger.connection(target) as conn:
        if await ledger.version(conn) < ledger.WITH_DELIVERIES:
            return False
        last = await ledger.last_alert(conn, target.name)
        known = letters.read(last) if last else None
        if last is None or known is None or (known.kind, known.state) != ("deploy", "failed"):
            return False
        there = await _open_incidents(conn, target.name)
        ends = routing.ended("withdrawn", there)
        of_deploys = [each for each, states in there.items() if routing.ANYTHING & states]
        if not ends or len(ends) < len(of_deploys):
            return False  # something worse is open
        alert = compose.withdrawn(target, last.deploy, head, ends=ends)
        await _put(conn, f"{target.name}-{last.deploy}-withdrawn", alert)
        return True


async def _put_after(conn: Conn, alert: Alert, last: QueuedAlert | None) -> bool:
    """Put it in, unless another one came after the last of its kind meanwhile."""
    await _put(conn, f"{alert.target}-{alert.kind}-{last.id if last else 0}", alert)
    return True


# ---------------------------------------------------------------- out


async def announce(target_name: str, emit: Callable[[Alert], None]) -> None:
    """Hand each new alert to ``emit``, once, whatever channels there are."""
    target = settings.target(target_name)
    async with ledger.connection(target) as conn:
        if await ledger.version(conn) < ledger.WITH_DELIVERIES:
            return
        await dead_man(conn, target)
        for queued in await ledger.unannounced(conn):
            # Whoever announces at this moment as well waits in here, and then passes it over.
            async with conn.transaction():
                alert = letters.read(queued)
                if alert and await ledger.claim_event(conn, queued.id):
                    emit(alert)


async def deliver(target_name: str, *, force: bool = False) -> tuple[Letter, ...]:
    """Send what the outbox of one target holds and is due; what was tried, and how it ended.

    A channel that does not take an alert is asked again by a later call, after a pause that grows,
    and no more after some days; it fails nothing.
    force: without the pauses.
    """
    target = settings.target(target_name)
    async with ledger.connection(target) as conn:
        # The next deploy upgrades an older ledger, and delivers what waits there.
        if await ledger.version(conn) < ledger.WITH_DELIVERIES:
            return ()
        await dead_man(conn, target)
        queued = letters.readable(await ledger.undelivered(conn))
        found = await letters.addressed(conn, target, queued)
        late = [letter for letter in found if letter.is_given_up]
        waiting = [letter for letter in found if not letter.is_given_up]
        await ledger.address(conn, [letter.delivery for letter in waiting])
        still_open = frozenset(await _open(conn, target.name))
        by_channel = [letters.due(waiting, name, force=force) for name in channels.CHANNELS]
        passes = (_send_all(target, todo, still_open) for todo in by_channel if todo)
        ended = await asyncio.gather(*passes, return_exceptions=True)
        done = [each.id for each in queued]
        await ledger.close_alerts(conn, done, sorted(channels.configured(target)))
        await _give_up(conn, late, waiting)
    if late or any(by_channel):
        # Outside of a deploy nobody else says that less waits now.
        await metrics.publish(target)
    return (*late, *_all(ended))


async def _give_up(conn: Conn, late: Sequence[Letter], waiting: Sequence[Letter]) -> None:
    """Close the alerts for which no channel but late ones is left."""
    for letter in late:
        log.warning("%s", letter)
    left = {letter.delivery.alert for letter in waiting}
    await ledger.close_alerts(conn, [n for x in late if (n := x.delivery.alert) not in left], [])


def _all(ended: Sequence[Sequence[Letter] | BaseException]) -> list[Letter]:
    """What was tried on all channels. Raises what went wrong on one."""
    tried: list[Letter] = []
    for each in ended:
        if isinstance(each, BaseException):
            raise each
        tried += each
    return tried


def out_of_reach(lease: Lease, kind: Kind) -> Alert:
    """The alert about a deploy whose ledger, and with it the outbox, cannot be reached."""
    return compose.bare(lease, "stranded", kind, why="its ledger was not reached")


async def call(alert: Alert, key: str) -> tuple[Letter, ...]:
    """Hand an alert to its channels past the outbox, once; how each ended."""
    target = settings.target(alert.target)
    names = sorted(routing.channels(alert) & channels.configured(target))
    filed = routing.filed(alert)
    posted = [
        Letter(alert=filed, key=key, delivery=Delivery(alert=0, channel=name)) for name in names
    ]
    ended = await asyncio.gather(*(_send(target, letter, frozenset({0})) for letter in posted))
    return tuple(_after(letter, error) for letter, (error, _) in zip(posted, ended, strict=True))


async def deliver_all() -> None:
    """Send what the outbox of each target holds. Raises nothing; for a loop."""
    try:
        names = list(settings.load().targets)
    except Exception as error:  # noqa: BLE001 – the loop goes on, and the file may be mended
        log.warning("No outbox was looked at: %s", type(error).__name__)
        return
    await asyncio.gather(*(_deliver_quietly(name) for name in names))


async def _deliver_quietly(name: str) -> None:
    try:
        async with asyncio.timeout(TARGET_S):
            await deliver(name)
    except Exception as error:  # noqa: BLE001 – one target's outage is not the others'
        log.warning("The outbox of %s was not emptied: %s", name, type(error).__name__)


async def _send_all(
    target: Target, todo: Sequence[Letter], still_open: frozenset[int]
) -> tuple[Letter, ...]:
    """Try one channel's letters in order, until it is seen to be down."""
    until, tried = time.monotonic() + PASS_S, list[Letter]()
    async with ledger.connection(target) as conn:
        for letter in todo:
            if time.monotonic() >= until:
                break
            done, goes_on = await _try(conn, target, letter, still_open)
            tried += [done] if done else []
            # A later alert may be the end of what this one says: it does not overtake it.
            if not goes_on:
                break
    return tuple(tried)


async def _try(
    conn: Conn, target: Target, letter: Letter, still_open: frozenset[int]
) -> tuple[Letter | None, bool]:
    """The letter after one attempt, None if that was another deliverer's; whether the next follows.

    Whoever else sends it at this moment is waited for.
    """
    delivery = letter.delivery
    async with conn.transaction():
        now = await ledger.claim(conn, delivery, wait_s=_limit_s(delivery.channel))
        if now is None or now.taken or now.attempts != delivery.attempts:
            return None, now is not None and (now.taken or now.refused)
        error, ended = await _send(target, letter, still_open)
        refused = ended == "refused" or (
            ended == "later" and delivery.attempts + 1 >= letters.HOLDS_UP_ATTEMPTS
        )
        await ledger.record_delivery(conn, delivery.alert, delivery.channel, error, refused=refused)
    return _after(letter, error), ended in ("taken", "refused")


def _limit_s(channel: str) -> float:
    return MAIL_S if channel == "email" else SEND_S


def _after(letter: Letter, error: str | None) -> Letter:
    if error is not None:
        log.warning("%s has not taken %s: %s", letter.delivery.channel, letter.key, error)
    attempts = letter.delivery.attempts + 1
    delivery = replace(letter.delivery, attempts=attempts, last_error=error, taken=error is None)
    return replace(letter, delivery=replace(delivery, waited_s=0.0))


async def _send(
    target: Target, letter: Letter, still_open: frozenset[int]
) -> tuple[str | None, Ending]:
    """Why a channel did not take an alert, None if it did; and how the attempt ended."""
    channel = letter.delivery.channel
    is_over = not letter.alert.resolves and letter.delivery.alert not in still_open
    if channel in routing.LATEST_ONLY and is_over:
        return None, "taken"
    try:
        async with asyncio.timeout(_limit_s(channel)):
            await channels.CHANNELS[channel].send(target, letter.key, letter.alert)
    except NotTaken as error:
        return str(error), "refused" if error.is_final else "later"
    except Refused as error:
        return str(error), "silent"
    except Exception as error:  # noqa: BLE001 – its text may carry the address, its class does not
        return type(error).__name__, "silent"
    return None, "taken"
