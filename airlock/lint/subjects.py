"""What statements are about: the names that tie them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from airlock.lint import sql
from airlock.syntax import Node, Statement

# What a statement makes, if that is no relation.
_MADE = ("typeName", "domainname", "funcname")
# Named by the table first, and then by themselves.
_ON_A_TABLE = (
    "OBJECT_COLUMN",
    "OBJECT_TABCONSTRAINT",
    "OBJECT_TRIGGER",
    "OBJECT_POLICY",
    "OBJECT_RULE",
)


def of(statements: Sequence[Statement]) -> list[frozenset[str]]:
    """For each statement the relations, and the types and functions of this file, that it names.

    Names without schemas: who writes both the long and the short form means the same.
    """
    made = {name for each in statements for name in _made(each)}
    return [
        frozenset() if _depends(each) else frozenset(_names(each.node, made)) for each in statements
    ]


def _depends(statement: Statement) -> bool:
    """Whether it is about a part of a table that it does not name."""
    dropped = statement.node.get("removeType") in ("OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_MATVIEW")
    return dropped or statement.kind == "ReindexStmt"


def _made(statement: Statement) -> Iterator[str]:
    if not statement.kind.startswith(("Create", "CompositeType", "Define")):
        return
    for key in _MADE:
        if isinstance(found := statement.node.get(key), list):
            yield sql.strings(cast("list[Node]", found))[-1]
    if "typevar" in statement.node:
        yield statement.node["typevar"]["relname"]
    if "sequence" in statement.node:
        yield statement.node["sequence"]["relname"]


def _names(statement: Node, made: set[str]) -> Iterator[str]:
    inside = list(_nodes(statement))
    local = {each["ctename"] for each in inside if "ctename" in each}
    for node in inside:
        if "relname" in node and node["relname"] not in local:
            yield node["relname"]
        if "idxname" in node:
            yield node["idxname"]
        for key in ("names", "funcname", "objname", "typeName", "domainname"):
            if isinstance(found := node.get(key), list):
                name = sql.strings(cast("list[Node]", found))[-1:]
                yield from made.intersection(name)
        if isinstance(text := node.get("sval"), str) and text in made:
            yield text
    yield from _objects(statement)


def _objects(statement: Node) -> Iterator[str]:
    """What DROP and COMMENT name."""
    kind = statement.get("removeType") or statement.get("objtype")
    for each in [*statement.get("objects", ()), statement.get("object", {})]:
        parts = sql.strings(each.get("List", {}).get("items", ()))
        parts = parts[:-1] if kind in _ON_A_TABLE else parts
        if parts:
            yield parts[-1]
        elif "String" in each:
            yield each["String"]["sval"]
    if "sequence" in statement:
        for option in statement.get("options", ()):
            if option["DefElem"]["defname"] == "owned_by":
                owner = sql.strings(option["DefElem"]["arg"]["List"]["items"])
                yield from owner[-2:-1]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            known = cast("dict[str, Any]", found)
            yield known
            waiting.extend(known.values())
        elif isinstance(found, list):
            waiting.extend(cast("list[Any]", found))
