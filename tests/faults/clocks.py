"""The wall clock of a runner is an hour off: its deadlines, who it is, and what it thinks old."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.faults.theatre import RELEASES, Case, Theatre

POINT = "apply_plan: 011_score.sql, after its COMMIT"
_AHEAD_S = {"an hour ahead": 3600, "an hour back": -3600}


def cases() -> Iterator[Case]:
    for said, ahead_s in _AHEAD_S.items():
        fault = f"the clock is {said}"
        for where, play, end in (
            ("forwards, all steps", partial(_throughout, ahead_s, "v2"), "succeeded"),
            (
                "during rollback, all steps",
                partial(_throughout, ahead_s, RELEASES["rollback"]),
                "rolled_back",
            ),
            ("forwards, for a runner that is killed", partial(_killed, ahead_s, 0), "rolled_back"),
            ("for who recovers a killed one", partial(_killed, 0, ahead_s), "rolled_back"),
            ("for who would recover a living one", partial(_alive, ahead_s), "succeeded"),
            ("forwards, where one snapshot is kept", partial(_kept, ahead_s), "succeeded"),
        ):
            name = f"{fault} / {where}"
            yield Case(name=name, fault=fault, where=where, play=play, ends=frozenset({end}))


async def _throughout(ahead_s: int, release: str, theatre: Theatre) -> None:
    theatre.ahead_s = ahead_s
    await theatre.deploy(release)


async def _killed(of_runner_s: int, of_recovery_s: int, theatre: Theatre) -> None:
    """Killed where a migration is there, and recovered by a process with another clock."""
    theatre.ahead_s = of_runner_s
    await theatre.deploy("v2", theatre.fault("kill", POINT))
    theatre.ahead_s = of_recovery_s
    await theatre.recover()


async def _alive(ahead_s: int, theatre: Theatre) -> None:
    """Its heart beats by the database's clock, so it is not taken over."""
    fault = theatre.fault("wait", POINT)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    theatre.ahead_s = ahead_s
    await theatre.recover()
    row = await theatre.stage.last()
    theatre.go(fault)
    assert row.holder.split(":")[1] == str(child.pid), "a living deploy was taken over"
    assert await child.wait() == 0, "the deploy did not end well"


async def _kept(ahead_s: int, theatre: Theatre) -> None:
    """By their names the second one's snapshot may be the older one, while it is needed."""
    theatre.stage.add("[targets.prod.snapshot]\nkeep = 1\nkeep_min = 1\n")
    await theatre.deploy("v1")
    theatre.ahead_s = ahead_s
    await theatre.deploy("v2")
    kept = [each for each in theatre.stage.target.snapshots_dir.glob("[0-9]*Z-*") if each.is_dir()]
    assert len(kept) == 1, f"{len(kept)} snapshots are kept"
