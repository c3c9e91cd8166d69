"""Which alert still has to go to which channel, and when it is tried again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airlock import ledger, record
from airlock.alert import Alert, channels, routing
from airlock.errors import Unreadable
from airlock.ledger import Delivery, QueuedAlert
from airlock.postgres import Conn
from airlock.settings import Target

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 900.0
# About a day with these pauses. Whatever it is answered then, the alert and not the channel is what
# is wrong: it holds up no later one any more.
HOLDS_UP_ATTEMPTS = 100
# A week: who mends a channel after a holiday still hears; what is older is news to nobody.
GIVE_UP_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One alert for one channel.

    age_s: since it was put into the outbox.
    """

    alert: Alert
    key: str
    delivery: Delivery
    age_s: float = 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether the channel is asked no more. It was asked once at least."""
        return self.delivery.attempts > 0 and self.age_s > GIVE_UP_S

    @property
    def due_in_s(self) -> float:
        """Seconds until it is tried again by itself."""
        waited_s = self.delivery.waited_s
        return 0.0 if waited_s is None else max(0.0, pause_s(self.delivery.attempts) - waited_s)

    def __str__(self) -> str:
        channel, tried = self.delivery.channel, self.delivery.attempts
        if self.delivery.taken:
            return f"{channel} took: {self.alert.title}"
        why = f"{self.delivery.last_error}, tried {tried} times" if tried else "not tried yet"
        has_not = "never did, and is asked no more" if self.is_given_up else "has not"
        return f"{channel} {has_not}: {self.alert.title} ({why})"


async def outstanding(conn: Conn, target: Target) -> tuple[Letter, ...]:
    """Each alert with each channel that should have it and has not, oldest first."""
    return await addressed(conn, target, readable(await ledger.undelivered(conn)))


async def given_up(conn: Conn, target: Target) -> tuple[Delivery, ...]:
    """What was given up in the last days, for a person to see."""
    configured = sorted(channels.configured(target))
    return await ledger.given_up(conn, configured, within_s=GIVE_UP_S)


def readable(queued: Iterable[QueuedAlert]) -> Mapping[QueuedAlert, Alert]:
    """What this version can read: the alert of another one may be unknown to it, and waits."""
    found = {each: read(each) for each in queued}
    return {each: alert for each, alert in found.items() if alert is not None}


def read(queued: QueuedAlert) -> Alert | None:
    """The alert; None, and a warning, where this version cannot read it."""
    try:
        return record.load(Alert, queued.body)
    except Unreadable:
        log.warning("Alert %d cannot be read by this version, and waits for a newer", queued.id)
        return None


async def addressed(
    conn: Conn, target: Target, queued: Mapping[QueuedAlert, Alert]
) -> tuple[Letter, ...]:
    """The same for these alerts."""
    known = {(each.alert, each.channel): each for each in await ledger.deliveries(conn)}
    configured, found = channels.configured(target), list[Letter]()
    for each, alert in queued.items():
        for channel in sorted(routing.channels(alert) & configured):
            new = Delivery(alert=each.id, channel=channel)
            delivery = known.get((each.id, channel), new)
            if not delivery.taken:
                letter = Letter(
                    alert=alert, key=each.dedup_key, delivery=delivery, age_s=each.age_s
                )
                found.append(letter)
    return tuple(found)


def pause_s(attempts: int) -> float:
    """How long a channel is left alone after so many attempts in vain."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (min(attempts, 20) - 1))


def due(waiting: Sequence[Letter], channel: str, *, force: bool) -> tuple[Letter, ...]:
    """What one channel is asked to take now, in order.

    A new alert asks it anyway: what waits for it goes first then, but not what it refused, which
    waits out its own pause and comes last.
    """
    letters = [letter for letter in waiting if letter.delivery.channel == channel]
    refused = [each for each in letters if each.delivery.refused and (force or each.due_in_s == 0)]
    others = [each for each in letters if not each.delivery.refused]
    return (*(others if force or _wakes(others) else ()), *refused)


def _wakes(letters: Sequence[Letter]) -> bool:
    """Whether the first one's pause is over, or there is one that came since it was tried."""
    if not letters or letters[0].due_in_s == 0:
        return bool(letters)
    return any(each.age_s < (letters[0].delivery.waited_s or 0) for each in letters[1:])
