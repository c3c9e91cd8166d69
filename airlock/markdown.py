"""People's words and code as markdown: shown as they are, whatever markup they look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from airlock.visible import visible

# What markdown, its tables, HTML and struck-out text would take for their own. An underscore
# between letters is none of it, and names are full of them.
_SPECIAL = re.compile(r"[\\`*\[\]<&|~]|(?<![^\W_])_|_(?![^\W_])")
# What makes a line a heading, a quotation, an item or a rule.
_BLOCK = re.compile(r"^(?:(?=[#>+=-])|(\d{1,9})(?=[.)](?: |$)))")


def plain(text: str) -> str:
    """Somebody's words on one line, shown as they are and never as markup."""
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(visible(text).split()))
    return _BLOCK.sub(r"\g<0>\\", escaped)


def code(text: str) -> str:
    """Code in a cell of a table, however many backticks and bars it has."""
    line = " ".join(visible(text).split())
    if not line or "\\|" in line:
        # Renderers disagree about a bar behind a backslash where nothing else can be escaped.
        return plain(line)
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> str:
    """Lines as they are, however many backticks they have."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are markdown on one line already, their bars escaped."""
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
