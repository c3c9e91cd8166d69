"""docs/lint.md, made of the rules and their cases. ``python -m tests.unit.lint.page`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airlock.lint import RULES, Rule
from tests.unit.lint.cases import CASES

PATH = Path(__file__).parents[3] / "docs" / "lint.md"
COMMAND = "make rules"

HEAD = f"""\
# What `airlock lint` finds

<!-- Written by `{COMMAND}` from the rules and the cases of their tests. -->

`airlock lint FILE` says of each statement what it locks, loses or breaks, and writes the safe way
beside it. It reads any `.sql` file; `docs/operations.md` says how files, levels and exceptions go
together. The examples are files of their own: the tables that they name are there, and in use.
"""


def page() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    for group in dict.fromkeys(rule.group for rule in RULES.values()):
        rules = [rule for rule in RULES.values() if rule.group == group]
        yield f"## {group.title()}\n"
        yield "| rule | level | finds |\n|---|---|---|"
        for rule in rules:
            yield f"| [{rule.id}](#{rule.id}) | {rule.level.word} | {rule.summary} |"
        yield ""
        for rule in rules:
            yield from _rule(rule)


def _rule(rule: Rule) -> Iterator[str]:
    yield f"### {rule.id}\n"
    source = f" [The manual]({rule.source})." if rule.source else ""
    yield f"{rule.summary}.{source}\n"
    for bad in (True, False):
        cases = (each for each in CASES if (each.rule, each.bad) == (rule.id, bad))
        if case := next(cases, None):
            sql = case.sql.replace("--next file\n", "-- the next file\n").strip()
            yield f"{'Bad' if bad else 'Good'}:\n\n```sql\n{sql}\n```\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
