"""The cases: each fault at each point that the fault-free runs passed, and those beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from tests.faults import alerts, beside, files, network, programs, services
from tests.faults.injector import Kind
from tests.faults.theatre import RELEASES, Case, Theatre

# Until a cancelled run has its SIGTERM.
CANCEL_S = 4.0
# Where the way back begins, in a run that is rolled back.
_BACK = "going_back: before rolling_back"
_DURING = {"forwards": "forwards,", "rollback": "during rollback,"}


def cases(points: Mapping[str, Sequence[str]]) -> list[Case]:
    """points: per scenario, in the order in which its fault-free run passed them."""
    return [
        *at_points("forwards", points["forwards"]),
        *at_points("rollback", _back(points)),
        *beside.cases(),
        *services.cases(),
        *alerts.cases(),
        *programs.cases(),
        *network.cases(),
        *files.cases(),
    ]


def _back(points: Mapping[str, Sequence[str]]) -> Sequence[str]:
    passed = points["rollback"]
    return passed[passed.index(_BACK) :]


def at_points(scenario: str, points: Sequence[str]) -> Iterator[Case]:
    plays = {
        "SIGKILL of the flow": _struck("kill"),
        "SIGTERM": _struck("term"),
        "SIGKILL of flow and worker": _killed_with_worker,
        "cancelled": _cancelled,
        "its sessions ended": beside.cut,
    }
    for point in points:
        for fault, play in plays.items():
            if fault.startswith("SIG") or _is_of_a_step(point):
                yield Case(
                    name=f"{scenario} / {point} / {fault}",
                    fault=fault,
                    where=f"{_DURING[scenario]} {point.split(': ')[0]}",
                    play=partial(play, RELEASES[scenario], point),
                )


def _is_of_a_step(point: str) -> bool:
    return True


def _struck(kind: Kind):
    async def play(release: str, point: str, theatre: Theatre) -> None:
        await theatre.deploy(release, theatre.fault(kind, point))

    return play


async def _killed_with_worker(release: str, point: str, theatre: Theatre) -> None:
    fault = theatre.fault("kill with worker", point)
    await theatre.deploy_by_worker(fault, release)
    await theatre.ended(fault)


async def _cancelled(release: str, point: str, theatre: Theatre) -> None:
    fault = theatre.fault("wait", point)
    run = await theatre.deploy_by_worker(fault, release)
    await theatre.house.worker.cancel(run)
    # The worker hears of it over its channel of events and passes SIGTERM on. What is stopped there
    # never goes on; a way back, which is not stopped, does.
    await asyncio.sleep(CANCEL_S)
    theatre.go(fault)
    await theatre.ended(fault)
