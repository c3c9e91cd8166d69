"""What each rule finds and what it lets be, as SQL, one file for each kind of thing.

``--# rule`` begins a rule's cases, ``--bad`` and ``--good`` each of them; ``--next file`` stands
between files that are deployed together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airlock import lint
from airlock.effects import World
from airlock.lint import Outcome, Policy

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One or more files that are deployed together."""

    rule: str
    bad: bool
    sql: str

    @property
    def files(self) -> list[str]:
        return self.sql.split("--next file\n")

    def __str__(self) -> str:
        first = next(line for line in self.sql.split("\n") if not line.startswith("-- "))
        return f"{self.rule} {'finds' if self.bad else 'lets be'} {first[:60]}"


def read() -> list[Case]:
    found: list[Case] = []
    for path in sorted(HERE.glob("*.sql")):
        for block in path.read_text(encoding="utf-8").split("--# ")[1:]:
            rule, _, cases = block.partition("\n")
            for case in cases.replace("--good\n", "--bad\ngood\n").split("--bad\n")[1:]:
                sql = case.removeprefix("good\n").strip() + "\n"
                found.append(Case(rule=rule, bad=not case.startswith("good\n"), sql=sql))
    return found


CASES = read()


def linted(*files: str, major: int = 16, policy: Policy | None = None) -> Outcome:
    scripts = [lint.read(f"{n:03d}.sql", sql) for n, sql in enumerate(files, 1)]
    return lint.lint(scripts, World(major=major), policy or Policy())
