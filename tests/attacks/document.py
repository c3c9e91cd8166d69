"""docs/attacks.md, made of one whole run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HEAD = """\
# What was tried to get in

`make attacks` wrote this page; no row is written by hand. Each row is a test that does what its
second column says, against a real PostgreSQL, a real Prefect server with its worker, and real
processes, and finds what the third one says instead.

{summary}

| who | tries | what happens | cases |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One case. not_run: what it needs and this machine does not have; empty where it held."""

    test: str
    by: str
    tries: str
    not_run: str = ""

    @property
    def claim(self) -> str:
        return self.test.partition("[")[0].removeprefix("test_").replace("_", " ")


def write(page: Path, tried: Sequence[Tried]) -> None:
    """The page: a row for each test, in the order of who tries, and what was not run by name."""
    page.write_text(document(tried), encoding="utf-8")


def document(tried: Sequence[Tried]) -> str:
    held = [each for each in tried if not each.not_run]
    summary = f"{len(held)} attacks were tried, and none got in."
    not_run = [each for each in tried if each.not_run]
    if not_run:
        summary += f" {len(not_run)} were not run; the last table says why."
    ordered = sorted(held, key=lambda each: each.by)
    rows = [
        f"| {by} | {tries} | {claim} | {len(list(cases))} |\n"
        for (by, tries, claim), cases in itertools.groupby(
            ordered, key=lambda each: (each.by, each.tries, each.claim)
        )
    ]
    text = _HEAD.format(summary=summary) + "".join(rows)
    if not_run:
        text += "\n## Not run\n\n| attack | needs |\n|---|---|\n"
        text += "".join(f"| {each.claim} | {each.not_run} |\n" for each in not_run)
    return text
