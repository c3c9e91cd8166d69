"""The wall clock of a runner is an hour off: its deadlines, who it is, and what it thinks old."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults.theatre import RELEASES, Case, Theatre

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_HOURS = {"an hour ahead": "+1h", "an hour back": "-1h"}


def clock(offset: str) -> dict[str, str]:
    """What a process is started with so that it reads another wall clock."""
    return {
        "LD_PRELOAD": str(_LIBRARIES[0]),
        "FAKETIME": offset,
        # Deadlines are the monotonic clock's.
        "DONT_FAKE_MONOTONIC": "1",
    }


def missing() -> str:
    """Why there are no such cases here; empty where there are."""
    return "" if _LIBRARIES else "no clock is set: install libfaketime for that"


def cases() -> Iterator[Case]:
    if missing():
        return
    for said, offset in _HOURS.items():
        fault = f"the clock is {said}"
        for where, play, end in (
            ("forwards, all steps", partial(_throughout, offset, "v2"), "succeeded"),
            (
                "during rollback, all steps",
                partial(_throughout, offset, RELEASES["rollback"]),
                "rolled_back",
            ),
            ("forwards, for a runner that is killed", partial(_killed, offset, ""), "rolled_back"),
            ("for who recovers a killed one", partial(_killed, "", offset), "rolled_back"),
            ("for who would recover a living one", partial(_alive, offset), "succeeded"),
            ("forwards, where one snapshot is kept", partial(_kept, offset), "succeeded"),
        ):
            name = f"{fault} / {where}"
            yield Case(name=name, fault=fault, where=where, play=play, ends=frozenset({end}))


async def _throughout(offset: str, release: str, theatre: Theatre) -> None:
    await (await theatre.start_alone("deploy", clock(offset), release=release)).wait()


async def _killed(of_runner: str, of_recovery: str, theatre: Theatre) -> None:
    """Killed where a migration is there, and recovered by a process with another clock."""
    fault = theatre.fault("kill", "apply_plan: 011_score.sql, after its COMMIT")
    faked = clock(of_runner) if of_runner else {}
    child = await theatre.start_alone("deploy", faked, fault, release="v2")
    assert await child.wait() == -signal.SIGKILL, "no fault: the deploy was not killed"
    faked = clock(of_recovery) if of_recovery else {}
    await (await theatre.start_alone("recover", faked)).wait()


async def _alive(offset: str, theatre: Theatre) -> None:
    """Its heart beats by the database's clock, so it is not taken over."""
    fault = theatre.fault("wait", "apply_plan: 011_score.sql, after its COMMIT")
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    await (await theatre.start_alone("recover", clock(offset))).wait()
    row = await theatre.stage.last()
    holder = row.holder.split(":")[1]
    theatre.go(fault)
    assert holder == str(child.pid), "a living deploy was taken over"
    assert await child.wait() == 0, "the deploy did not end well"


async def _kept(offset: str, theatre: Theatre) -> None:
    """The second one's snapshot is the older one by its name, and is there while it is needed."""
    theatre.stage.add("[targets.prod.snapshot]\nkeep = 1\nkeep_min = 1\n")
    await theatre.deploy("v1")
    await (await theatre.start_alone("deploy", clock(offset), release="v2")).wait()
    kept = [each for each in theatre.stage.target.snapshots_dir.glob("[0-9]*Z-*") if each.is_dir()]
    assert len(kept) == 1, f"{len(kept)} snapshots are kept"
