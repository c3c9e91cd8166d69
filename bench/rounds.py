"""What every measurement shares: rounds in turn, medians, and the table's rows."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PLACE = CHECKOUT / ".airlock" / "bench"

# One run of one contestant: how long it took, in seconds.
Contestant = Callable[[], Awaitable[float]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. Values are medians, in ``unit``."""

    what: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    unit: str = "s"
    must: str = ""
    holds: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as long the peer takes; above 1 we are faster."""
        return self.peer / self.ours if self.peer is not None and self.ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much is measured, and where."""

    quick: bool
    rounds: int | None
    folder: Path
    say: Say

    def times(self, usual: int) -> int:
        """How many rounds: what the command line says, or the measurement's own number."""
        return self.rounds or (1 if self.quick else usual)


async def interleaved(
    contestants: Mapping[str, Contestant], *, rounds: int, say: Say
) -> dict[str, list[float]]:
    """The seconds of each contestant in each round.

    In turn, and every other round backwards: what else the machine does meets all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            say(f"round {number + 1} of {rounds}: {name}")
            seconds[name].append(await contestants[name]())
    return seconds


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Least and most, such as ``1.20-1.41``: how much the median is worth."""
    return f"{min(values):.3g}–{max(values):.3g}"


async def program(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fails: bool = False,
) -> tuple[float, str]:
    """Run a program to its end: the seconds of the whole process, and what it printed.

    fails: whether another exit status than 0 is expected.
    """
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
    )
    out, err = await process.communicate()
    seconds = time.monotonic() - began
    if (process.returncode != 0) != fails:
        tail = (out + err).decode(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} {' '.join(command[1:4])}: {process.returncode}\n{tail}")
    return seconds, out.decode(errors="replace")


async def json_program(command: Sequence[str], env: Mapping[str, str]) -> dict[str, float]:
    """What a program of ours printed as its last line: one JSON object of numbers."""
    _, out = await program(command, env=env, cwd=CHECKOUT)
    return json.loads(out.splitlines()[-1])
