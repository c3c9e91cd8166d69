"""Which statements stand or fall together, and which PostgreSQL refuses in a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from airlock.syntax import Node, Statement


def needs_no_transaction(statement: Statement) -> bool:
    """Whether PostgreSQL refuses the statement inside a transaction block."""
    node = statement.node
    match statement.kind:
        case "IndexStmt" | "DropStmt" | "VacuumStmt":
            return bool(node.get("concurrent") or node.get("is_vacuumcmd"))
        case "AlterDatabaseStmt":
            return any(o["DefElem"]["defname"] == "tablespace" for o in node.get("options", []))
        case "ReindexStmt":
            whole = ("REINDEX_OBJECT_SCHEMA", "REINDEX_OBJECT_SYSTEM", "REINDEX_OBJECT_DATABASE")
            return has_option(node, "concurrently") or node.get("kind") in whole
        case "ClusterStmt" | "DiscardStmt":
            return "relation" not in node and node.get("target", "DISCARD_ALL") == "DISCARD_ALL"
        case "AlterTableStmt":
            return any(_detaches_concurrently(command) for command in node.get("cmds", []))
        case _:
            return statement.kind in _NEVER_IN_A_TRANSACTION


_NEVER_IN_A_TRANSACTION = {
    "AlterSystemStmt",
    "CreatedbStmt",
    "CreateSubscriptionStmt",
    "CreateTableSpaceStmt",
    "DropdbStmt",
    "DropSubscriptionStmt",
    "DropTableSpaceStmt",
}


def has_option(node: Node, name: str, *, key: str = "params") -> bool:
    """Whether an option in parentheses is there and on."""
    options = [option["DefElem"] for option in node.get(key, [])]
    return any(option["defname"] == name and _is_on(option.get("arg")) for option in options)


def _is_on(argument: Node | None) -> bool:
    """An option's truth as PostgreSQL reads it; a bare option is on."""
    if argument is None:
        return True
    value = argument.get("String", {}).get("sval", "") or argument.get("Integer", {}).get("ival", 0)
    return str(value).lower() in ("true", "on", "1")


def _detaches_concurrently(command: Node) -> bool:
    definition = command["AlterTableCmd"].get("def", {})
    return bool(definition.get("PartitionCmd", {}).get("concurrent"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Statements that stand or fall together: one transaction, or one statement outside any."""

    statements: tuple[Statement, ...]
    transactional: bool


def segments(statements: Iterable[Statement]) -> tuple[Segment, ...]:
    """The longest transactions that the order of the statements allows."""
    done: list[Segment] = []
    together: list[Statement] = []
    for statement in statements:
        if not needs_no_transaction(statement):
            together.append(statement)
            continue
        if together:
            done.append(Segment(statements=tuple(together), transactional=True))
            together = []
        done.append(Segment(statements=(statement,), transactional=False))
    if together:
        done.append(Segment(statements=tuple(together), transactional=True))
    return tuple(done)
