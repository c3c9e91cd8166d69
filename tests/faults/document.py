"""docs/faults.md, made of one whole run of the matrix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HEAD = """\
# What was broken, and how it ended

`make faults` wrote this page; no row is written by hand. For each of {number} faults it deploys to
a production of its own, with clients that write all the while, does what the row says, and lets
`airlock recover` do its work. PostgreSQL {version}, real processes, a real Prefect server and its
workers.

After each fault production was deployed, or exactly as before: the schema and every row, each
acknowledged write once, the ledger closed, its alerts delivered, one instance of the right release
serving, and no process, session, lock, prepared transaction, invalid index, database or file left
over. A run that was taken over has ended for Prefect as well.

The flow is killed at every point that a run without a fault passes. SIGTERM, a killed worker and
Cancel come at four points of each journaled step, forwards and during the rollback: before its
intent is written, after that, after its effect and before the record, and after the record.
`make faults ARGS=--all` plays every fault at every point, for hours.

A case prints its name and its seed. To play it again: `make faults ARGS="--only 'NAME' --seed N"`.
Its name alone plays it with another seed, and `ARGS=--list` prints the names.

| fault | where | how often | how it ended |
|---|---|---|---|
"""
_GUARDS = """
## Without a guard

Each of these {number} guards was taken away in the processes of one case, by a patch from outside.
Every one was missed: the case, which is survived with it, was lost.

| without | in the case | what was seen |
|---|---|---|
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


@dataclass(frozen=True, slots=True)
class Bitten:
    """A guard that was missed, the case that it was missed in, and what was seen there."""

    guard: str
    case: str
    seen: str


def page(played: Iterable[Played], bitten: Sequence[Bitten], *, version: str) -> str:
    """The page, without a date: the same run gives the same page."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for each in played:
        rows.setdefault((each.fault, each.where), Counter())[_ENDS.get(each.end, each.end)] += 1
    number = sum(ends.total() for ends in rows.values())
    lines = [
        f"| {fault} | {where} | {ends.total()} | {_told(ends)} |"
        for (fault, where), ends in sorted(rows.items())
    ]
    missed = [
        f"| {each.guard} | {each.case} | {_steady(each.seen)} |"
        for each in sorted(bitten, key=lambda each: each.guard)
    ]
    return (
        f"{_HEAD.format(number=number, version=version)}{_lines(lines)}"
        f"{_GUARDS.format(number=len(missed))}{_lines(missed)}"
    )


def _lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _steady(seen: str) -> str:
    """What is seen in each run alike: no numbers of processes, hashes, addresses or folders."""
    short = re.sub(r"(?<!\w)/\S*", "…", seen.splitlines()[0])
    return re.sub(r"\w*\d{4,}\w*|\b[0-9a-f]{8,}\b", "…", short).replace("|", "/")[:160]


def _told(ends: Counter[str]) -> str:
    return ", ".join(f"{end} ×{number}" for end, number in sorted(ends.items()))
