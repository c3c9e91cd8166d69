"""The cases: each fault at each point that the fault-free runs passed, and those beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.faults.injector import Kind
from tests.faults.theatre import RELEASES, Case, Theatre

# Where the way back begins, in a run that is rolled back.
_BACK = "going_back: before rolling_back"
_KINDS: Mapping[Kind, str] = {"kill": "SIGKILL of the flow"}


def cases(points: Mapping[str, Sequence[str]]) -> list[Case]:
    """points: per scenario, in the order in which its fault-free run passed them."""
    return [*_points("forwards", points["forwards"]), *_points("rollback", _back(points))]


def _back(points: Mapping[str, Sequence[str]]) -> Sequence[str]:
    passed = points["rollback"]
    return passed[passed.index(_BACK) :]


def _points(scenario: str, points: Sequence[str]) -> Iterator[Case]:
    for point in points:
        for kind, fault in _KINDS.items():
            yield Case(
                name=f"{scenario} / {point} / {kind}",
                fault=fault,
                where=f"{scenario}: {point}",
                play=_struck_at(scenario, point, kind),
            )


def _struck_at(scenario: str, point: str, kind: Kind):
    async def play(theatre: Theatre) -> None:
        await theatre.deploy(RELEASES[scenario], theatre.fault(kind, point))

    return play
