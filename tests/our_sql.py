"""All SQL of Airlock's own, of its .sql files and its Python, as PostgreSQL's grammar reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import airlock
from airlock import syntax
from airlock.syntax import Node

ROOT = Path(airlock.__file__).parent
# lint's is text for people: nobody runs it here.
_NOT_RUN = "lint/"
_BEGIN = re.compile(
    r"\s*(WITH|SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|EXPLAIN|COPY|LOCK|DO|SET|BEGIN)\s"
)
_PLACE = re.compile(r"\{[a-z_]+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """One text of SQL, and the file that it is in."""

    file: str
    text: str

    def nodes(self, kind: str) -> Iterator[Node]:
        for statement in syntax.parse(self.text):
            whole = {statement.kind: statement.node}
            yield from (node for name, node in syntax.walk(whole) if name == kind)

    def types(self) -> Iterator[tuple[str, ...]]:
        """The names of its types. Those that are key words have their schema from the grammar."""
        for statement in syntax.parse(self.text):
            yield from _types(statement.node)

    def named(self, kind: str, key: str) -> Iterator[tuple[str, ...]]:
        """The names, in parts, that nodes of a kind have under a key."""
        for node in self.nodes(kind):
            yield tuple(part["String"]["sval"] for part in node.get(key, ()))


@cache
def ours() -> tuple[Sql, ...]:
    return (*_files(), *_strings())


def _files() -> Iterator[Sql]:
    for path in sorted((ROOT / "sql").glob("*.sql")):
        text = path.read_text(encoding="utf-8").replace("{{", "{").replace("}}", "}")
        # An expression that is put in stands for a condition, or a name.
        yield Sql(file=path.name, text=_PLACE.sub("x", text))


def _strings() -> Iterator[Sql]:
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name.startswith(_NOT_RUN):
            continue
        for text in _literals(ast.parse(path.read_text(encoding="utf-8"))):
            if _BEGIN.match(text) and _is_sql(text):
                yield Sql(file=name, text=text)


def _literals(node: ast.AST) -> Iterator[str]:
    """The strings of a program; what an f-string puts in stands there as x."""
    if isinstance(node, ast.JoinedStr):
        parts = (each.value if isinstance(each, ast.Constant) else "x" for each in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield _PLACE.sub("x", node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)


def _types(node: object) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict):
        if "names" in node and "typemod" in node:
            yield tuple(part["String"]["sval"] for part in node["names"])
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from _types(child)


def _is_sql(text: str) -> bool:
    try:
        return bool(syntax.parse(text))
    except syntax.SqlError:
        return False


def functions() -> frozenset[str]:
    return frozenset(name[-1] for sql in ours() for name in sql.named("FuncCall", "funcname"))


def operators() -> frozenset[str]:
    return frozenset(name[-1] for sql in ours() for name in sql.named("A_Expr", "name"))


def types() -> frozenset[str]:
    return frozenset(name[-1] for sql in ours() for name in sql.types())


def relations() -> frozenset[str]:
    return frozenset(node["relname"] for sql in ours() for node in sql.nodes("RangeVar"))
