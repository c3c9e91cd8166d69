"""The cases: each fault at each point that the fault-free runs passed, and those beside them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from tests.faults import (
    alerts,
    beside,
    clocks,
    files,
    neighbours,
    network,
    programs,
    refreshes,
    services,
)
from tests.faults.injector import Kind
from tests.faults.theatre import DURING, RELEASES, Case, Theatre

# Until a cancelled run has its SIGTERM.
CANCEL_S = 4.0
# Where the way back begins, in a run that is rolled back.
_BACK = "going_back: before rolling_back"
_INTENT = ": before the intent"
# Of a state, or of the note that a step without one ends with.
_BEFORE_RECORD = ": before (?:[a-z_]+|the note of [a-z_]+)(?: #[0-9]+)?"
_ABOUT = (": before ", ": after ")
# One in a transaction, one that cannot run in one, and a contract.
_OF_A_MIGRATION = re.compile("011_score|012_offers|014_unread")
KILLED = "SIGKILL of the flow"
BY_WORKER = ("SIGKILL of flow and worker", "cancelled")
CUT = "its sessions ended"


def cases(points: Mapping[str, Sequence[str]]) -> list[Case]:
    """points: per scenario, in the order in which its fault-free run passed them."""
    return [
        *at_points("forwards", points["forwards"]),
        *at_points("rollback", _back(points)),
        *beside_points(),
    ]


def beside_points() -> list[Case]:
    """What needs no recorded run: whatever is about the surroundings, or at one known place."""
    return [
        *beside.cases(),
        *neighbours.cases(),
        *refreshes.cases(),
        *clocks.cases(),
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
    """Every fault at every point; which of them each run of ``make faults`` plays, is a rule.

    SIGKILL of the flow: at every point. SIGTERM, a killed worker and Cancel: at the kill points of
    the steps; at those of single migrations SIGTERM, and the other two in turn. Sessions ended by
    the server: at the kill points in production.
    """
    plays = {
        KILLED: _struck("kill"),
        "SIGTERM": _struck("term"),
        BY_WORKER[0]: _killed_with_worker,
        BY_WORKER[1]: _cancelled,
        CUT: beside.cut,
    }
    turning = of_steps(points)
    single = [point for point in points if _OF_A_MIGRATION.search(point)]

    def is_played(fault: str, point: str) -> bool:
        if point in single and fault in BY_WORKER:
            return fault == BY_WORKER[single.index(point) % 2]
        in_production = point.startswith(("apply_plan: ", "apply_contract: ", "roll_back: "))
        is_of_fault = in_production if fault == CUT else True
        return fault == KILLED or (is_of_fault and point in (*turning, *single))

    for point in points:
        for fault, play in plays.items():
            yield Case(
                name=f"{scenario} / {point} / {fault}",
                fault=fault,
                where=f"{DURING[scenario]} {point.split(': ')[0]}",
                play=partial(play, RELEASES[scenario], point),
                is_played=is_played(fault, point),
            )


def of_steps(points: Sequence[str]) -> set[str]:
    """The four kill points of each journaled step.

    They are before the intent is written, after it, after the effect and before its record, and
    after the record. What runs in a transaction has two: its intent and its record are one COMMIT.
    """
    found = set[str]()
    for step in [point.partition(": ")[0] for point in points if point.endswith(_INTENT)]:
        found |= {f"{step}{_INTENT}", f"{step}: after the intent"}
        written = [each for each in points if re.fullmatch(f"{step}{_BEFORE_RECORD}", each)]
        found |= {each.replace(": before ", when) for each in written[-1:] for when in _ABOUT}
    return found


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
