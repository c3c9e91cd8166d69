"""The way to the database: cut, stalled, or with the answer to one COMMIT lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from tests.faults.proxy import Proxy
from tests.faults.theatre import RELEASES, Case, Theatre

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
_AWAY_S = 3.0


def cases() -> Iterator[Case]:
    plays = {
        "the answer to COMMIT is lost": _swallow,
        "the connections are cut for 3 s": partial(_away, "cut"),
        "the network stalls for 3 s": partial(_away, "stall"),
    }
    for fault, play in plays.items():
        for scenario, point in _POINTS:
            during = "forwards" if scenario == "forwards" else "during rollback"
            yield Case(
                name=f"{fault} / {scenario} / {point}",
                fault=fault,
                where=f"{during}, {point.partition(': ')[0]}",
                play=partial(_through, scenario, point, play),
            )


async def _through(scenario: str, point: str, disturb, theatre: Theatre) -> None:
    async with theatre.through_a_proxy() as proxy:
        fault = theatre.fault("wait", point)
        child = await theatre.start("deploy", fault, release=RELEASES[scenario])
        await theatre.reached(fault, child)
        await disturb(proxy, lambda: theatre.go(fault))
        await child.wait()
        assert disturb is not _swallow or proxy.swallowed, "no COMMIT came by"


async def _swallow(proxy: Proxy, go) -> None:
    proxy.mode = "swallow COMMIT"
    go()


async def _away(how: str, proxy: Proxy, go) -> None:
    if how == "cut":
        proxy.cut()
    proxy.mode = how
    go()
    await asyncio.sleep(_AWAY_S)
    proxy.mode = "pass"
