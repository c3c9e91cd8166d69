"""The probe itself: asks on every channel, all the time, and writes down what it saw.

A process of its own, because a runner that is busy with a restore would measure its own pauses.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from airlock import ledger, postgres, record
from airlock.client import waits
from airlock.client.channels import (
    Absent,
    Failed,
    Sessions,
    Way,
    database_ways,
    service_ways,
    touched_tables,
)
from airlock.client.felt import Channel, Counting, Drawing, Kind, Part, moment
from airlock.errors import AirlockError
from airlock.ledger import Lease, State
from airlock.postgres import Conn
from airlock.settings import Target

_POLL_S = 0.5
# While a person is waited for nobody is measured, and what comes then must not be missed.
_ASKED_POLL_S = 0.1
_TICK_S = 0.1
# An intent shows only when it is committed: what is younger is not sorted into before and during.
_HELD_BACK_S = 2.0
_FLUSH_S = 60.0
_LAST_WORDS_S = 2.0
_ABSENT_S = 1.0
_WARM_S = 1.0
_AWAY_S = 2.0
# Less: the server has to give up first, or a table that is kept would gather a session per try.
_CONTROL_S = 1.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """One wait or failure. Seconds since the epoch, by the database's clock.

    outcome: "open" still waited when nobody measured any more.
    """

    meter: _Meter
    began: float
    ended: float
    outcome: Literal["answered", "failed", "open"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Meter:
    """One channel, and what was counted on it.

    since: when the wait that is going on began, by the monotonic clock; None between two requests.
    failures: how many there were since the last good answer.
    is_known: whether it has ever answered: what never did is not counted.
    """

    way: Way
    is_known: bool = False
    why_not: str = ""
    since: float | None = None
    failures: int = 0
    before: Counting = field(default_factory=Counting)
    during: Counting = field(default_factory=Counting)

    @property
    def channel(self) -> Channel:
        return Channel(
            name=self.way.name,
            kind=self.way.kind,
            before=self.before.tally,
            during=self.during.tally,
            why_not=self.why_not if not self.is_known else "",
        )


class Probe:
    """All channels of one deploy, beside one runner of it."""

    def __init__(self, target: Target, deploy: int, fence: int, file: Path) -> None:
        self._target, self._deploy, self._fence, self._file = target, deploy, fence, file
        self._interval_s = target.probe.interval_ms / 1000
        self._meters: list[_Meter] = []
        self._held: deque[_Seen] = deque()
        self._drawings: dict[tuple[Kind, bool], Drawing] = {}
        # Of the monotonic clock to the database's.
        self._offset_s = time.time() - time.monotonic()
        self._began = self._now
        self._touched: float | None = None
        self._is_asked = False
        self._longest_ms = 0.0
        self._state, self._written = "", 0.0

    @property
    def _now(self) -> float:
        return time.monotonic() + self._offset_s

    async def run(self, parent_gone: asyncio.Event) -> None:
        """Measure until the deploy is over, another runner has it, or this one is gone."""
        async with (
            Sessions(self._target.database_url) as sessions,
            service_ways(self._target) as service,
        ):
            async with _control(self._target) as conn:
                await self._begin(conn, service, sessions)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._tell())]
                pause_s = self._interval_s / len(self._meters)
                for number, meter in enumerate(self._meters):
                    # Not all at once: they would wait for each other.
                    asking = self._ask_again(meter, first_s=number * pause_s)
                    tasks.append(group.create_task(asking))
                await self._follow(parent_gone)
                self._give_up_waiting()
                for task in tasks:
                    task.cancel()
        async with asyncio.timeout(_LAST_WORDS_S), _control(self._target) as conn:
            # A short deploy is over before anybody looked whether it had begun.
            await self._look(conn)
            self._sort(until=math.inf)
            await self._write(conn, is_whole=True)

    async def _begin(self, conn: Conn, service: Sequence[Way], sessions: Sessions) -> None:
        row = await ledger.deploy(conn, self._deploy)
        known = await _known(conn, self._deploy)
        tables = await touched_tables(conn, row.planned)
        ways = (*service, *database_ways(sessions, tables))
        self._meters = [_Meter(way=way, is_known=(way.kind, way.name) in known) for way in ways]
        await self._warm_up()
        now: datetime = await conn.fetchval("SELECT pg_catalog.clock_timestamp()")
        self._offset_s = now.timestamp() - time.monotonic()
        self._began = self._now

    async def _warm_up(self) -> None:
        """One request each: what imports and connects for the first time is no wait of a client."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WARM_S):
                for meter in self._meters:
                    with suppress(Absent, Failed):
                        await meter.way.ask(lambda: None)

    # ---------------------------------------------------------------- measuring

    async def _ask_again(self, meter: _Meter, *, first_s: float) -> None:
        await asyncio.sleep(first_s)
        while True:
            if self._is_asked:
                meter.since, meter.failures = None, 0
                await asyncio.sleep(_ASKED_POLL_S)
                continue
            began = time.monotonic()
            pause_s = await self._ask(meter, began)
            took_s = time.monotonic() - began
            # Whoever is slow is asked half of the time at most.
            await asyncio.sleep(max(pause_s - took_s, min(took_s, 1.0), 0.001))

    async def _ask(self, meter: _Meter, began: float) -> float:
        """One request; how long after its beginning the next one is due, in seconds."""

        def sent() -> None:
            if not meter.failures:
                meter.since = time.monotonic()

        if meter.since is None:
            meter.since = began
        try:
            await meter.way.ask(sent)
        except Absent as error:
            meter.since, meter.failures, meter.why_not = None, 0, str(error)
            return _ABSENT_S
        except Failed as error:
            meter.why_not = str(error)
            if meter.is_known:
                meter.failures += 1
                self._see(meter, began, "failed")
            else:
                meter.since = None
            # A database that comes up again is not to be stormed.
            if meter.way.kind.startswith("service"):
                return self._interval_s
            # What never answered will hardly do so now, and each try is a line in the server's log.
            known_s = self._interval_s * min(5, 1 + meter.failures)
            return known_s if meter.is_known else _ABSENT_S
        self._see(meter, meter.since, "answered")
        meter.is_known, meter.failures, meter.since = True, 0, None
        return self._interval_s

    def _see(
        self, meter: _Meter, began: float, outcome: Literal["answered", "failed", "open"]
    ) -> None:
        ended = time.monotonic()
        if outcome == "answered":
            self._longest_ms = max(self._longest_ms, (ended - began) * 1000)
        self._held.append(_Seen(meter, began + self._offset_s, ended + self._offset_s, outcome))

    def _give_up_waiting(self) -> None:
        """What waits now waits no longer: it counts as far as it came."""
        long_ago = time.monotonic() - self._interval_s
        for meter in self._meters:
            if meter.is_known and meter.since is not None and meter.since < long_ago:
                self._see(meter, meter.since, "open")

    async def _tell(self) -> None:
        """Let whoever asks on this machine know how long clients wait at this moment."""
        # Where the disk is full nobody is told, and it is measured all the same.
        with suppress(OSError), waits.writing(self._file) as write:
            while True:
                await asyncio.sleep(_TICK_S)
                now = time.monotonic()
                open_s = [now - m.since for m in self._meters if m.is_known and m.since is not None]
                write(now, max(self._longest_ms, 1000 * max(open_s, default=0.0)))
                self._longest_ms = 0.0

    # ---------------------------------------------------------------- sorting

    def _sort(self, *, until: float) -> None:
        """Count what ended before that moment, as before or during."""
        while self._held and self._held[0].ended <= until:
            seen = self._held.popleft()
            counting = self._counting(seen.meter, seen.ended)
            counting.requests += seen.outcome != "open"
            if seen.outcome == "failed":
                counting.failed += 1
                self._drawing(seen.meter, seen.ended).fail(seen.began)
            else:
                self._count(seen.meter, seen.began, seen.ended - seen.began, ended=seen.ended)

    def _count(self, meter: _Meter, began: float, waited_s: float, *, ended: float) -> None:
        counting, drawing = self._counting(meter, ended), self._drawing(meter, ended)
        counting.add(began, waited_s * 1000, interval_ms=self._interval_s * 1000)
        # Each stretch in which somebody waited shows how long they still had to.
        passed = 0.0
        while passed < waited_s:
            drawing.add(began + passed, (waited_s - passed) * 1000)
            passed += drawing.width_s

    def _is_during(self, ended: float) -> bool:
        return self._touched is not None and ended >= self._touched

    def _counting(self, meter: _Meter, ended: float) -> Counting:
        return meter.during if self._is_during(ended) else meter.before

    def _drawing(self, meter: _Meter, ended: float) -> Drawing:
        during = self._is_during(ended)
        began = max(self._began, self._touched or 0.0) if during else self._began
        return self._drawings.setdefault((meter.way.kind, during), Drawing(meter.way.kind, began))

    # ---------------------------------------------------------------- the ledger

    async def _follow(self, parent_gone: asyncio.Event) -> None:
        """Look how far the deploy is, until it is over or nobody is there any more."""
        while not parent_gone.is_set():
            # A database that is away is what clients feel: it is asked again.
            with suppress(AirlockError, OSError, TimeoutError, *postgres.DRIVER_ERRORS):
                async with _control(self._target) as conn:
                    while not await self._is_over(conn) and not parent_gone.is_set():
                        await _pause(parent_gone, _ASKED_POLL_S if self._is_asked else _POLL_S)
                    return
            await _pause(parent_gone, _POLL_S)

    async def _is_over(self, conn: Conn) -> bool:
        """Read how far the deploy is, sort what is certain by now, and write at each new state."""
        asked_at = self._now
        state = await self._look(conn)
        if state is None:
            return True
        self._sort(until=asked_at - _HELD_BACK_S)
        if state == self._state and asked_at - self._written < _FLUSH_S:
            return False
        await self._write(conn)
        # Who undoes what had ended finds it finished, and goes on.
        is_over = state in ledger.FINISHED and self._state != ""
        self._state, self._written = state, asked_at
        return is_over

    async def _look(self, conn: Conn) -> State | None:
        """The deploy's state; None where another runner has it."""
        found = await conn.fetchrow(postgres.query("client_poll"), self._deploy)
        if found is None or found["fence"] != self._fence:
            return None
        self._is_asked = found["is_asked"]
        if found["touched_at"] is not None:
            self._touched = found["touched_at"].timestamp()
        return found["state"]

    async def _write(self, conn: Conn, *, is_whole: bool = False) -> None:
        part = Part(
            began_at=moment(self._began),
            until_at=moment(self._now),
            touched_at=moment(self._touched) if self._touched is not None else None,
            channels=tuple(meter.channel for meter in self._meters),
            lines=tuple(each.line for each in self._drawings.values()),
            is_whole=is_whole,
        )
        await write(conn, self._deploy, self._fence, part)


async def _pause(parent_gone: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(parent_gone.wait(), seconds)


@asynccontextmanager
async def _control(target: Target) -> AsyncGenerator[Conn]:
    """A session for the ledger, in which nothing is waited for longer than a moment."""
    url = target.database_url
    async with postgres.connect(
        url, purpose="client ledger", timeout_s=_AWAY_S, limit_s=_AWAY_S
    ) as conn:
        await postgres.stay_connected(conn)
        await conn.execute(f"SET statement_timeout = {round(_CONTROL_S * 1000)}")
        yield conn


async def add_note(conn: Conn, lease: Lease, part: Part) -> None:
    """Store why nothing was measured; what was measured until then stays."""
    for known in await _stored(conn, lease.deploy, lease.fence):
        part = replace(known, note=part.note)
    await write(conn, lease.deploy, lease.fence, part)


async def write(conn: Conn, deploy: int, fence: int, part: Part) -> None:
    """Store what one probe has seen so far."""
    await conn.execute(
        "INSERT INTO airlock.client (deploy, fence, part) VALUES ($1, $2, $3)"
        " ON CONFLICT (deploy, fence) DO UPDATE SET part = excluded.part",
        deploy,
        fence,
        record.dump(part),
    )


async def parts(conn: Conn, deploy: int) -> tuple[Part, ...]:
    """What the probes of a deploy have stored, in order; nothing in an older ledger."""
    if await ledger.version(conn) < 3:
        return ()
    return await _stored(conn, deploy)


async def _stored(conn: Conn, deploy: int, fence: int | None = None) -> tuple[Part, ...]:
    rows = await conn.fetch(
        "SELECT part FROM airlock.client WHERE deploy = $1 AND ($2::bigint IS NULL OR fence = $2)"
        " ORDER BY fence",
        deploy,
        fence,
    )
    return tuple(record.load(Part, row["part"]) for row in rows)


async def _known(conn: Conn, deploy: int) -> set[tuple[str, str]]:
    """The channels that answered while an earlier runner had the deploy."""
    return {
        (each.kind, each.name)
        for part in await parts(conn, deploy)
        for each in part.channels
        if each.before.requests or each.during.requests
    }
