"""What clients felt, as data: counted, thinned and added up, small enough for the ledger.

A *wait* begins with a request and ends with the next good answer: a client that fails tries again,
and its user goes on waiting. While one request waits, those that the schedule would have begun
meanwhile wait as well, each from its own moment; they are in the percentiles, and not in the number
of requests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Literal

Kind = Literal["service read", "service write", "database read", "database write"]
KINDS: tuple[Kind, ...] = ("service read", "service write", "database read", "database write")

# Waits are counted in steps of 5 %, from a twentieth of a millisecond.
SMALLEST_MS = 0.05
_GROWTH = math.log(1.05)
# A line of a plot has so many points at most, and begins with the finest.
POINTS = 240
FINEST_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The requests of one channel in one stretch of time.

    longest_at: when the longest wait began. waits: how many there were in each step of 5 %.
    """

    requests: int = 0
    failed: int = 0
    longest_ms: float = 0.0
    longest_at: datetime | None = None
    waits: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def p99_ms(self) -> float | None:
        """99 of 100 waits were no longer, to 5 %; None where nothing was answered."""
        wanted = 0.99 * sum(self.waits.values())
        passed = 0
        for step in sorted(self.waits):
            passed += self.waits[step]
            if passed >= wanted:
                return min(self.longest_ms, SMALLEST_MS * math.exp(_GROWTH * step))
        return None

    def __add__(self, other: Tally) -> Tally:
        longer = self if self.longest_ms >= other.longest_ms else other
        return Tally(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            longest_ms=longer.longest_ms,
            longest_at=longer.longest_at,
            waits=Counter(self.waits) + Counter(other.waits),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One way to the service or the database, before production was touched and since.

    name: such as ``table public.deals``, for people. why_not: why it was not measured; empty where
    it was.
    """

    name: str
    kind: Kind
    before: Tally = Tally()
    during: Tally = Tally()
    why_not: str = ""

    def __add__(self, other: Channel) -> Channel:
        before, during = self.before + other.before, self.during + other.during
        asked = before.requests or during.requests
        return Channel(
            name=self.name,
            kind=self.kind,
            before=before,
            during=during,
            why_not="" if asked else self.why_not or other.why_not,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The longest wait and the failures of one kind of channel, over time.

    longest_ms, failed: by numbers of stretches of ``width_s`` seconds since ``began_at``.
    """

    kind: Kind
    began_at: datetime
    width_s: float
    longest_ms: Mapping[int, float]
    failed: Mapping[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one probe saw, from its start until it last wrote.

    touched_at: when production was first touched, as far as it knew.
    is_whole: whether it went on until the deploy, or its runner, ended.
    note: why nothing was measured.
    """

    began_at: datetime
    until_at: datetime
    touched_at: datetime | None = None
    channels: tuple[Channel, ...] = ()
    lines: tuple[Line, ...] = ()
    is_whole: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """The longest wait of a kind of request, and where it was."""

    ms: float
    at: datetime
    channel: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """Everything that the probes of one deploy saw, added up."""

    parts: tuple[Part, ...]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Each channel once, the service first."""
        found: dict[tuple[str, str], Channel] = {}
        for part in self.parts:
            for each in part.channels:
                key = (each.kind, each.name)
                found[key] = found[key] + each if key in found else each
        return tuple(sorted(found.values(), key=lambda each: KINDS.index(each.kind)))

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for part in self.parts for line in part.lines)

    @property
    def touched_at(self) -> datetime | None:
        """When production was first touched; None where it never was."""
        return min((part.touched_at for part in self.parts if part.touched_at), default=None)

    @property
    def before(self) -> Tally:
        """All channels until production was touched."""
        return reduce(Tally.__add__, (each.before for each in self.channels), Tally())

    @property
    def during(self) -> Tally:
        """All channels since then."""
        return reduce(Tally.__add__, (each.during for each in self.channels), Tally())

    @property
    def requests(self) -> int:
        return self.before.requests + self.during.requests

    @property
    def failed(self) -> int:
        return self.before.failed + self.during.failed

    @property
    def longest_read(self) -> Stall | None:
        """Since production was touched; before, where it never was."""
        return self._longest("service read", "database read")

    @property
    def longest_write(self) -> Stall | None:
        """See ``longest_read``."""
        return self._longest("service write", "database write")

    @property
    def longest(self) -> Stall | None:
        both = (self.longest_read, self.longest_write)
        return max((each for each in both if each), key=lambda each: each.ms, default=None)

    def _longest(self, *kinds: Kind) -> Stall | None:
        found = [
            Stall(ms=tally.longest_ms, at=tally.longest_at, channel=each.name, kind=each.kind)
            for each in self.channels
            if each.kind in kinds
            and (tally := each.during if self.touched_at else each.before).longest_at
        ]
        return max(found, key=lambda each: each.ms, default=None)

    @property
    def gaps(self) -> Iterator[str]:
        """What was not measured, and why: whole probes first, then channels."""
        for part in self.parts:
            if part.note:
                yield part.note
            elif not part.is_whole:
                yield f"anything after {part.until_at:%H:%M:%S} UTC, when the probe ended"
        for each in self.channels:
            if each.why_not:
                yield f"{each.kind}, {each.name}: {each.why_not}"

    @property
    def sentence(self) -> str:
        """The numbers, for people."""
        if not self.requests:
            return f"Not measured: {'; '.join(self.gaps) or 'nothing answered'}"
        longest = {"read": self.longest_read, "write": self.longest_write}
        stalls = [f"of a {word} {shown_ms(each.ms)}" for word, each in longest.items() if each]
        said = [f"longest stall {', '.join(stalls)}"] if stalls else []
        said.append(f"{self.failed:,} of {self.requests:,} requests failed")
        before, during = self.before.p99_ms, self.during.p99_ms
        if during is not None:
            base = f" ({shown_ms(before)} before)" if before is not None else ""
            said.append(f"p99 {shown_ms(during)}{base}")
        elif before is not None:
            said.append(f"p99 {shown_ms(before)}, and production was not touched")
        text = "; ".join(said)
        return f"{text[:1].upper()}{text[1:]}"


def shown_ms(ms: float) -> str:
    """A wait for people: ``0.4 ms``, ``31 ms``, ``1.24 s``."""
    if ms < 9.95:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 999.5 else f"{ms / 1000:.2f} s"


# ---------------------------------------------------------------- counting


@dataclass(slots=True)
class Counting:
    """A tally that grows."""

    requests: int = 0
    failed: int = 0
    longest_ms: float = 0.0
    longest_at: float | None = None
    waits: Counter[int] = field(default_factory=Counter[int])

    def add(self, began: float, ms: float, *, interval_ms: float) -> None:
        """Count a wait, and those of the requests that it kept from being begun.

        began: seconds since the epoch.
        """
        if ms >= self.longest_ms:
            self.longest_ms, self.longest_at = ms, began
        for each in owed(ms, interval_ms):
            self.waits[_step(each)] += 1

    @property
    def tally(self) -> Tally:
        return Tally(
            requests=self.requests,
            failed=self.failed,
            longest_ms=round(self.longest_ms, 3),
            longest_at=moment(self.longest_at) if self.longest_at is not None else None,
            waits=dict(self.waits),
        )


def owed(ms: float, interval_ms: float) -> Iterator[float]:
    """A wait, and what those waited that the schedule would have begun meanwhile."""
    while ms > 0:
        yield ms
        ms -= interval_ms


def _step(ms: float) -> int:
    return max(0, math.ceil(math.log(max(ms, SMALLEST_MS) / SMALLEST_MS) / _GROWTH - 1e-9))


def moment(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


@dataclass(slots=True)
class Drawing:
    """A line that grows; its stretches become twice as wide whenever there are too many."""

    kind: Kind
    began: float
    width_s: float = FINEST_S
    longest_ms: dict[int, float] = field(default_factory=dict[int, float])
    failed: Counter[int] = field(default_factory=Counter[int])

    def add(self, at: float, ms: float) -> None:
        """A wait that began at a moment in seconds since the epoch."""
        number = self._number(at)
        self.longest_ms[number] = max(self.longest_ms.get(number, 0.0), ms)

    def fail(self, at: float) -> None:
        """A failed request of that moment."""
        self.failed[self._number(at)] += 1

    def _number(self, at: float) -> int:
        while at - self.began >= POINTS * self.width_s:
            self._halve()
        return max(0, int((at - self.began) / self.width_s))

    def _halve(self) -> None:
        self.width_s *= 2
        wider: dict[int, float] = {}
        for number, ms in self.longest_ms.items():
            wider[number // 2] = max(wider.get(number // 2, 0.0), ms)
        self.longest_ms = wider
        failed = Counter[int]()
        for number, count in self.failed.items():
            failed[number // 2] += count
        self.failed = failed

    @property
    def line(self) -> Line:
        return Line(
            kind=self.kind,
            began_at=moment(self.began),
            width_s=self.width_s,
            longest_ms={number: round(ms, 2) for number, ms in self.longest_ms.items()},
            failed=dict(self.failed),
        )


def together(parts: Sequence[Part]) -> Felt | None:
    """What the probes of one deploy saw; None where there was none."""
    return Felt(parts=tuple(parts)) if parts else None
