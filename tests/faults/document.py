"""docs/faults.md, made of one whole run of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = """\
# What was broken, and how it ended

`make faults` wrote this page; no row is written by hand. For each of {number} faults it deploys to
a production of its own, with clients that write all the while, does what the row says, and lets
`airlock recover` do its work. PostgreSQL {version}, real processes, a real Prefect server and its
workers.

After each fault production was deployed, or exactly as before: the schema and every row, each
acknowledged write once, the ledger closed, its alerts delivered, one instance of the right release
serving, and no process, session, lock, invalid index, database or file left over.

Each case prints its seed. One is played again with `make faults ARGS="--only NAME --seed N"`.

| fault | where | how often | how it ended |
|---|---|---|---|
"""
_ENDS = {
    "succeeded": "deployed",
    "rolled_back": "rolled back",
    "failed": "refused, untouched",
    "not begun": "not begun",
}


@dataclass(frozen=True, slots=True)
class Played:
    """One fault that was survived."""

    fault: str
    where: str
    end: str


def page(played: Iterable[Played], *, version: str) -> str:
    """The page, without a date: the same run gives the same page."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for each in played:
        rows.setdefault((each.fault, each.where), Counter())[_ENDS.get(each.end, each.end)] += 1
    number = sum(ends.total() for ends in rows.values())
    lines = [
        f"| {fault} | {where} | {ends.total()} | {_told(ends)} |"
        for (fault, where), ends in sorted(rows.items())
    ]
    return _HEAD.format(number=number, version=version) + "\n".join(lines) + "\n"


def _told(ends: Counter[str]) -> str:
    return ", ".join(f"{end} ×{number}" for end, number in sorted(ends.items()))
