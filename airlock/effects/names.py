"""The names in DROP, COMMENT and their like, which are lists of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from airlock.syntax import Node

# Whose last part is its own name, and the one before it the table's.
_OWNED = {
    "OBJECT_COLUMN",
    "OBJECT_POLICY",
    "OBJECT_RULE",
    "OBJECT_TABCONSTRAINT",
    "OBJECT_TRIGGER",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name with its schema, or "". owner: the table of a column, trigger, rule or policy."""

    schema: str
    name: str
    owner: str = ""


def listed(parts: Sequence[Node] | Node) -> list[str]:
    """The words of a list of String nodes, or of a List of them."""
    items: Sequence[Node] = parts.get("items", []) if isinstance(parts, Mapping) else parts
    return [part["String"]["sval"] for part in items if "String" in part]


def names_of(node: Node) -> Iterator[Name]:
    """What a DROP names."""
    for each in node.get("objects", []):
        found = name_of(each, node["removeType"])
        if found is not None:
            yield found


def name_of(item: Node, kind: str) -> Name | None:
    """One name, as DROP and COMMENT write it."""
    for wrapper in ("List", "TypeName", "ObjectWithArgs"):
        if wrapper in item:
            inner = item[wrapper]
            words = listed(inner.get("items") or inner.get("names") or inner.get("objname") or [])
            return _split(words, kind)
    return _split([item["String"]["sval"]], kind) if "String" in item else None


def _split(words: list[str], kind: str) -> Name | None:
    if not words:
        return None
    if kind not in _OWNED:
        return Name(schema=words[-2] if len(words) > 1 else "", name=words[-1])
    owner = words[-2] if len(words) > 1 else ""
    return Name(schema=words[-3] if len(words) > 2 else "", name=words[-1], owner=owner)
