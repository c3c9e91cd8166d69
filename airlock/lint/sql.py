"""Pieces of a statement's own text, to write its safe form with.

The tree says where its parts begin; where they end is found by counting parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from airlock import syntax
from airlock.syntax import Node, Statement

_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'"
    r'|"(?:[^"]|"")*"|[\w$]+|\s+|.',
    re.DOTALL,
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_DEPTH = {"(": 1, "[": 1, ")": -1, "]": -1}


def pieces(text: str) -> Iterator[str]:
    """Words, strings, quoted names, comments and signs of a text, all of it."""
    return (match[0] for match in _TOKEN.finditer(text))


def tokens(text: str) -> Iterator[str]:
    """The pieces; comments and blanks as one blank."""
    for token in pieces(text):
        blank = token.isspace() or token.startswith(("--", "/*"))
        yield " " if blank else token


def flat(text: str) -> str:
    """The text on one line, without comments and a last semicolon."""
    return _joined(tokens(text))


def _joined(parts: Iterable[str]) -> str:
    return re.sub(r" {2,}", " ", "".join(parts)).strip(" ;")


def with_words(text: str, after: str, words: str) -> str:
    """The text, flat, with words behind the first ``after``: CREATE INDEX, and CONCURRENTLY."""
    found: list[str] = []
    missing = True
    for token in tokens(text):
        found.append(token)
        if missing and token.upper() == after:
            found.append(f" {words}")
            missing = False
    return _joined(found)


def without_words(text: str, words: str) -> str:
    """The text, flat, without the first run of these words, such as IF NOT EXISTS."""
    pattern = r"\s+".join(words.split())
    return re.sub(rf"\s{pattern}(?=\s|$)", "", flat(text), count=1, flags=re.IGNORECASE)


def piece(statement: Statement, start: int, stop: int | None = None) -> str:
    """The text from one of the tree's locations to the end of that part, flat.

    stop: a location at which it ends in any case.
    """
    first, last = _span(statement, start, stop)
    return flat(statement.text[first:last])


def replaced(statement: Statement, start: int, stop: int | None, words: str) -> str:
    """The statement with other words in place of a piece."""
    first, last = _span(statement, start, stop)
    rest = statement.text[first:last]
    blank = rest[len(rest.rstrip()) :]
    return f"{statement.text[:first]}{words}{blank}{statement.text[last:]}"


def _span(statement: Statement, start: int, stop: int | None) -> tuple[int, int]:
    """Where a piece begins and ends, in characters. The tree counts bytes."""
    source = statement.text.encode()
    last = len(source) if stop is None else stop - statement.offset
    begin = len(source[: start - statement.offset].decode(errors="replace"))
    end, depth = begin, 0
    for token in pieces(source[start - statement.offset : last].decode(errors="replace")):
        depth += _DEPTH.get(token, 0)
        if depth < 0 or (depth == 0 and token in ",;"):
            break
        end += len(token)
    return begin, end


# ---------------------------------------------------------------- names


@cache
def ident(name: str) -> str:
    """A name as one would write it: quoted where it has to be."""
    quoted = '"' + name.replace('"', '""') + '"'
    if not _PLAIN.fullmatch(name):
        return quoted
    # Of the reserved words only these have a sign in them.
    if not name.isalpha() and not name.startswith(("current_", "session_", "system_")):
        return name
    try:
        syntax.parse(f"CREATE TABLE {name} ({name} int)")
    except syntax.SqlError:
        return quoted
    return name


def qualified(range_var: Node) -> str:
    """A relation as the statement names it."""
    schema = range_var.get("schemaname", "")
    name = ident(range_var.get("relname", ""))
    return f"{ident(schema)}.{name}" if schema else name


def strings(items: Iterable[Node]) -> tuple[str, ...]:
    """The texts of a list of String nodes."""
    return tuple(item.get("String", {}).get("sval", "") for item in items)


def columns(items: Iterable[Node]) -> str:
    """A list of String nodes as columns: ``a, "B"``."""
    return ", ".join(ident(name) for name in strings(items))


def shortened(*parts: str) -> str:
    """A name made of others, of at most the 63 bytes that PostgreSQL keeps."""
    return "_".join(part for part in parts if part).encode()[:63].decode(errors="ignore")


# ---------------------------------------------------------------- what only the text tells

RANGE = re.compile(r"\bFROM\s*\(([^(),]+)\)\s*TO\s*\(([^(),]+)\)", re.IGNORECASE)
LIST = re.compile(r"\bFOR VALUES IN\s*\(([^()]+)\)", re.IGNORECASE)


def after_word(text: str, word: str) -> str:
    """The text behind a word; empty where it is not there."""
    found = list(tokens(text))
    places = [n for n, token in enumerate(found) if token.upper() == word]
    return _joined(found[places[0] + 1 :]) if places else ""


def before_word(text: str, word: str) -> str:
    """The text up to a word at its top level."""
    found: list[str] = []
    for token in tokens(text):
        if token.upper() == word:
            break
        found.append(token)
    return _joined(found)
