"""Which migrations may go into one deploy: expands first, and a contract not with its expand.

docs/decisions/0018-phases.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from airlock import syntax
from airlock.errors import Refused
from airlock.migration import Migration
from airlock.syntax import Statement

# Schema and name; the schema is empty where the statement names none.
Name = tuple[str, str]

# Where a statement has the name of what it makes or changes, if that is no relation.
_OWN_NAMES = ("funcname", "typeName", "domainname")
# What is named by its table first.
_ON_A_TABLE = ("OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE", "OBJECT_TABCONSTRAINT")


def check(migrations: Sequence[Migration]) -> None:
    """Raises Refused for a contract beside its expand, or an expand behind a contract."""
    expands: list[Migration] = []
    contracts: list[Migration] = []
    for each in migrations:
        if each.phase == "contract":
            _check_apart(each, expands)
            contracts.append(each)
        elif contracts:
            _refuse_behind(each, contracts[-1])
        else:
            expands.append(each)


def at_once(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """All of them as expands: for an empty database, which no release has used yet."""
    return tuple(replace(each, phase="expand") for each in migrations)


def _check_apart(contract: Migration, expands: Sequence[Migration]) -> None:
    ours = named(contract.forward)
    for each in reversed(expands):
        if both := sorted(_shown(name) for name in ours if _is_among(name, named(each.forward))):
            raise Refused(
                f"{contract.file} is a contract, and {each.file} of the same deploy works on "
                f"{', '.join(both)} as well. What an expand brings has to be in use before the old "
                f"shape goes. Deploy up to {each.version:03d} first (--up-to {each.version}), and "
                f"{contract.version:03d} in a later deploy."
            )


def _refuse_behind(expand: Migration, contract: Migration) -> None:
    raise Refused(
        f"{expand.file} is an expand behind the contract {contract.file}. Migrations run in order, "
        f"and contracts after the new release is healthy. Deploy up to {contract.version:03d} "
        f"first (--up-to {contract.version}), then {expand.version:03d}."
    )


def named(sql: str) -> frozenset[Name]:
    """The relations, routines and types that the statements name. Not what a DO block does."""
    return frozenset(name for each in syntax.parse(sql) for name in _named(each))


def _named(statement: Statement) -> Iterator[Name]:
    # A comment changes nothing that anybody relies on.
    if statement.kind == "CommentStmt":
        return
    node = statement.node
    inside = list(_nodes(node))
    local = {("", each["ctename"]) for each in inside if "ctename" in each}
    relations = [each for each in inside if "relname" in each]
    yield from {(each.get("schemaname", ""), each["relname"]) for each in relations} - local
    lists: list[list[Any]] = [each["objname"] for each in inside if "objname" in each]
    lists += [node[key] for key in _OWN_NAMES if isinstance(node.get(key), list)]
    for each in [*node.get("objects", ()), node.get("object", {})]:
        names: list[Any] = (
            each.get("List", {}).get("items") or each.get("TypeName", {}).get("names") or []
        )
        lists.append(names[:-1] if node.get("removeType") in _ON_A_TABLE else names)
    yield from (_name(names) for names in lists if names)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        inner = cast("dict[str, Any]", node)
        yield inner
        for child in inner.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in cast("list[Any]", node):
            yield from _nodes(child)


def _name(parts: list[Any]) -> Name:
    words = [part.get("String", {}).get("sval", "") for part in parts]
    return (words[-2] if len(words) > 1 else "", words[-1])


def _is_among(name: Name, others: Iterable[Name]) -> bool:
    """Whether one of them may be the same: without a schema it may be in any."""
    schema, own = name
    return any(own == other and (not schema or not at or schema == at) for at, other in others)


def _shown(name: Name) -> str:
    return ".".join(part for part in name if part)
