"""SQL as PostgreSQL's own grammar reads it.

postgast carries libpg_query, PostgreSQL's parser as a shared library. We call its JSON entry point
directly: importing the package's Python side costs a third of a second, and reading commands have
0.4 s in all (docs/decisions/0005-parser.md).
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from airlock.errors import Refused

# A node of the syntax tree: libpg_query's protobuf messages in JSON form.
Node: TypeAlias = Mapping[str, Any]


def quote_ident(*parts: str) -> str:
    """A possibly qualified identifier, quoted: ``quote_ident("a", 'b"c')`` is ``"a"."b""c"``."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


class SqlError(ValueError):
    """Text that PostgreSQL's grammar does not accept. ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SQL statement of a file."""

    text: str
    line: int
    kind: str  # the node's name in the grammar, such as AlterTableStmt
    node: Node
    ended: bool  # by a semicolon
    offset: int = 0  # in bytes, in the text that was parsed, as the tree's locations are

    @property
    def summary(self) -> str:
        """The statement on one line, cut to 100 characters."""
        flat = " ".join(self.text.split())
        return flat if len(flat) <= 100 else flat[:99] + "…"


class _Error(ctypes.Structure):
    _fields_ = (
        ("message", ctypes.c_char_p),
        ("funcname", ctypes.c_char_p),
        ("filename", ctypes.c_char_p),
        ("lineno", ctypes.c_int),
        ("cursorpos", ctypes.c_int),
        ("context", ctypes.c_char_p),
    )


class _Result(ctypes.Structure):
    _fields_ = (
        ("tree", ctypes.c_char_p),
        ("stderr", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    )


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("postgast")
    if spec is None or spec.origin is None:
        raise Refused("postgast is not installed. Run: make test, or pip install postgast")
    library = ctypes.CDLL(str(Path(spec.origin).with_name("libpg_query.so")))
    library.pg_query_parse.argtypes = [ctypes.c_char_p]
    library.pg_query_parse.restype = _Result
    library.pg_query_free_parse_result.argtypes = [_Result]
    return library


# A file is read when it is planned and when it is applied, often by one process.
@lru_cache(maxsize=2048)
def parse(sql: str, *, first_line: int = 1) -> tuple[Statement, ...]:
    """The statements of a text, in order; comments belong to none.

    first_line: the line of the file at which the text begins.
    Raises SqlError with the line of the mistake, or of the text's first line when it is nested too
    deeply to be read.
    """
    source = sql.encode()
    if b"\0" in source:
        line = first_line + source[: source.index(b"\0")].count(b"\n")
        raise SqlError("a NUL byte", line)
    library = _library()
    result = library.pg_query_parse(source)
    try:
        if result.error:
            error = result.error.contents
            # cursorpos counts characters from 1; 0 means unknown.
            line = first_line + sql[: max(error.cursorpos - 1, 0)].count("\n")
            raise SqlError(error.message.decode(), line)
        try:
            tree = json.loads(result.tree)
        except RecursionError:
            raise SqlError("an expression is nested too deeply; divide it", first_line) from None
    finally:
        library.pg_query_free_parse_result(result)
    return tuple(_statement(source, raw, first_line) for raw in tree.get("stmts", []))


def _statement(source: bytes, raw: Node, first_line: int) -> Statement:
    # Offsets are in bytes and zero is left out of the JSON.
    start = int(raw.get("stmt_location", 0))
    length = int(raw.get("stmt_len", 0)) or len(source) - start
    text = source[start : start + length]
    start += len(text) - len(text.lstrip())
    kind, node = next(iter(raw["stmt"].items()))
    return Statement(
        text=text.decode().strip(),
        line=first_line + source[:start].count(b"\n"),
        kind=kind,
        node=node,
        ended="stmt_len" in raw,
        offset=start,
    )


def walk(node: object) -> Iterator[tuple[str, Node]]:
    """Each named node below this one, with its name, parents before children."""
    # A stack: generators within generators cost a linter half of its time.
    waiting: list[tuple[str, Any]] = [("", node)]
    while waiting:
        name, found = waiting.pop()
        if isinstance(found, dict):
            if name[:1].isupper():
                yield name, found  # pyright: ignore[reportUnknownVariableType]
            waiting.extend(reversed(found.items()))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(found, list):
            waiting.extend(("", each) for each in reversed(found))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
