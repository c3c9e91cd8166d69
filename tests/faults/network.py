"""The way to the database: cut, stalled, or with the answer to one COMMIT lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from tests.faults.proxy import Proxy
from tests.faults.theatre import DURING, ENDS, RELEASES, Case, Theatre

_APPLY = (
    "010_halt_monitoring.sql, before its COMMIT",
    "011_score.sql, before its COMMIT",
    "012_offers.sql, before the announced statement",
    "012_offers.sql, after its effect",
    "before applied",
)
_BACK = (
    "ROLLBACK NOTES of 012_offers, after its effect",
    "ROLLBACK NOTES of 011_score, before its COMMIT",
    "ROLLBACK NOTES of 010_halt_monitoring, before its COMMIT",
    "before rolled_back",
)
_POINTS = (
    *(("forwards", f"apply_plan: {point}") for point in _APPLY),
    ("forwards", "succeed: before succeeded"),
    *(("rollback", f"roll_back: {point}") for point in _BACK),
)
# Longer than the timeouts of one try, shorter than a person's patience.
AWAY_S = 3.0
# Nothing listens there.
NOBODY = ("127.0.0.1", 1)
Disturb = Callable[[Proxy, Callable[[], None]], Awaitable[None]]


def cases() -> Iterator[Case]:
    plays = {
        "the answer to COMMIT is lost": _lose,
        "the connections are cut for 3 s": _cut,
        "the network stalls for 3 s": _stall,
    }
    for fault, play in plays.items():
        for number, (scenario, point) in enumerate(_POINTS):
            lost = play is _lose
            ends = {"succeeded"} if scenario == "forwards" else {"rolled_back"}
            yield Case(
                name=f"{fault} / {scenario} / {point}",
                fault=fault,
                where=f"{DURING[scenario]} {point.partition(': ')[0]}",
                play=partial(_through, scenario, point, play),
                ends=frozenset(ends) if lost else ENDS,
                # An outage is one at every second of them.
                is_played=lost or number % 2 == (play is _stall),
            )


async def _through(scenario: str, point: str, disturb: Disturb, theatre: Theatre) -> None:
    async with theatre.through_a_proxy() as proxy:
        fault = theatre.fault("wait", point)
        child = await theatre.start("deploy", fault, release=RELEASES[scenario])
        await theatre.reached(fault, child)
        await disturb(proxy, lambda: theatre.go(fault))
        await child.wait()
        assert disturb is not _lose or proxy.struck, "no COMMIT came by"


async def _lose(proxy: Proxy, go: Callable[[], None]) -> None:
    proxy.arm("cut after")
    go()


async def _cut(proxy: Proxy, go: Callable[[], None]) -> None:
    there, proxy.upstream = proxy.upstream, NOBODY
    proxy.cut()
    go()
    await asyncio.sleep(AWAY_S)
    proxy.upstream = there


async def _stall(proxy: Proxy, go: Callable[[], None]) -> None:
    proxy.stall()
    go()
    await asyncio.sleep(AWAY_S)
    proxy.resume()
