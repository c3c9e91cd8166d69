"""One file as it is linted: statements, what cannot be read, and what is to be let pass."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from airlock import effects, syntax
from airlock.lint import sql
from airlock.syntax import SqlError, Statement

# Why it stands so: the statement's line is what a reader looks for.
_ALLOW = re.compile(r"\s*--\s*airlock:\s*allow\b\s*([\w-]*)(?:\s+because\b\s*(.*))?", re.IGNORECASE)
_BACKFILL = re.compile(r"^\s*--\s*airlock:\s*backfill\b", re.IGNORECASE | re.MULTILINE)
_PHASE = re.compile(r"^\s*--\s*phase:\s*contract\s*$", re.IGNORECASE | re.MULTILINE)
_COPY = re.compile(r"\s*COPY\s.*\sFROM\s+STDIN\b", re.IGNORECASE)

_BEGIN = ("TRANS_STMT_BEGIN", "TRANS_STMT_START")
_END = ("TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK", "TRANS_STMT_PREPARE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """A comment that lets one rule pass for the statement below it.

    statement: the line of that statement; 0 where none follows.
    """

    line: int
    rule: str
    reason: str
    statement: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What PostgreSQL's grammar does not accept."""

    line: int
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a statement runs. transaction: which one of the file; None outside of any.

    opened: by a BEGIN in the file, not by Airlock.
    """

    transaction: int | None
    opened: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A file's SQL. history: it is not judged, but what it makes is known."""

    file: str
    text: str
    statements: tuple[Statement, ...]
    places: tuple[Place, ...]
    mistakes: tuple[Mistake, ...]
    allows: tuple[Allow, ...]
    phase: Literal["expand", "contract"]
    backfill: bool
    history: bool = False

    @property
    def left_open(self) -> Statement | None:
        """A BEGIN that nothing ends."""
        found = None
        for statement in self.statements:
            if statement.kind == "TransactionStmt":
                found = statement if statement.node.get("kind") in _BEGIN else None
        return found


def read(file: str, text: str, *, history: bool = False) -> Script:
    """A text as a script; what cannot be parsed becomes a mistake, and the rest is still read."""
    statements, mistakes = _statements(text)
    return Script(
        file=file,
        text=text,
        statements=statements,
        places=tuple(_places(statements)),
        mistakes=mistakes,
        allows=tuple(allows(text, statements)),
        phase="contract" if _PHASE.search(text) else "expand",
        backfill=_BACKFILL.search(text) is not None,
        history=history,
    )


def exceptions(text: str) -> tuple[Allow, ...]:
    """The exceptions of a file that has been deployed: those with a reason and a statement."""
    statements, _ = _statements(text)
    return tuple(each for each in allows(text, statements) if each.reason and each.statement)


def allows(text: str, statements: tuple[Statement, ...]) -> Iterator[Allow]:
    """The exceptions that stand in comments between two statements."""
    if "allow" not in text.lower():
        return
    first = [each.line for each in statements]
    last = [each.line + each.text.count("\n") for each in statements]
    for number, line in enumerate(text.split("\n"), 1):
        match = _ALLOW.fullmatch(line)
        after = bisect_left(first, number)
        if match is None or (after and number < last[after - 1]):
            continue
        yield Allow(
            line=number,
            rule=match[1],
            reason=(match[2] or "").strip(),
            statement=first[after] if after < len(first) else 0,
        )


# ---------------------------------------------------------------- transactions


def _places(statements: tuple[Statement, ...]) -> Iterator[Place]:
    """As Airlock runs them; a file that opens transactions itself is taken at its word."""
    if not any(each.kind == "TransactionStmt" for each in statements):
        for number, segment in enumerate(effects.segments(statements)):
            for _ in segment.statements:
                yield Place(transaction=number if segment.transactional else None)
        return
    number: int | None = None
    for count, statement in enumerate(statements):
        if statement.kind != "TransactionStmt":
            yield Place(transaction=number, opened=number is not None)
            continue
        kind = statement.node.get("kind")
        number = count if kind in _BEGIN else None if kind in _END else number
        yield Place(transaction=number, opened=True)


# ---------------------------------------------------------------- mistakes


def _statements(text: str) -> tuple[tuple[Statement, ...], tuple[Mistake, ...]]:
    try:
        return syntax.parse(text), ()
    except SqlError:
        pass
    rest, mistakes = _without_psql(text)
    found: list[Statement] = []
    for line, part in _parts(rest):
        try:
            found += syntax.parse(part, first_line=line)
        except SqlError as error:
            mistakes.append(
                Mistake(line=error.line, message=f"{error.message}.", remedy="-- Mend the SQL.")
            )
    return tuple(found), tuple(sorted(mistakes, key=lambda mistake: mistake.line))


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a text that is not SQL throughout, each with the line it begins at."""
    line, depth = 1, 0
    words: list[str] = []
    part: list[str] = []
    for token in sql.pieces(text):
        part.append(token)
        if token == ";" and (depth == 0 or "RULE" not in words[:4]) and not _is_body(words):
            yield line, "".join(part)
            line += "".join(part).count("\n")
            part, depth, words = [], 0, []
        elif token.isidentifier():
            words.append(token.upper())
        elif token in "()":
            depth += 1 if token == "(" else -1
    yield line, "".join(part)


def _is_body(words: list[str]) -> bool:
    """Inside of BEGIN ATOMIC, whose statements end with semicolons as well."""
    begun = words.count("ATOMIC") and words[words.index("ATOMIC") - 1] == "BEGIN"
    return bool(begun) and words.count("END") <= words.count("CASE")


def _without_psql(text: str) -> tuple[str, list[Mistake]]:
    """The text with psql's own lines blank, and what they were."""
    lines = text.split("\n")
    mistakes: list[Mistake] = []
    in_data = False
    for number, line in enumerate(lines, 1):
        if in_data:
            in_data = line.strip() != "\\."
            lines[number - 1] = ""
        elif _COPY.match(line):
            in_data = "\\." in (each.strip() for each in lines[number:])
            lines[number - 1] = ""
            message = "COPY from the client works in psql only."
            remedy = "-- Write INSERT INTO … VALUES (…), or read a file on the server."
            mistakes.append(Mistake(line=number, message=message, remedy=remedy))
        elif line.startswith("\\"):
            message = f"{line.split()[0]} is a command of psql, not SQL."
            remedy = "-- Write the SQL itself; the file is sent to the server."
            mistakes.append(Mistake(line=number, message=message, remedy=remedy))
            lines[number - 1] = ""
    return "\n".join(lines), mistakes
