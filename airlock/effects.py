"""What a statement does to the database: locks, rewrites, scans, rows.

One type for what is predicted from the syntax tree and what is measured on the clone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from airlock.syntax import Node, Statement


class LockMode(IntEnum):
    """PostgreSQL's table lock modes, weakest first.

    https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
    """

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def pg_name(self) -> str:
        """The name in pg_locks, such as AccessExclusiveLock."""
        return self.name.title().replace("_", "") + "Lock"

    @classmethod
    def from_pg_name(cls, name: str) -> LockMode:
        return next(mode for mode in cls if mode.pg_name == name)

    @property
    def blocks_reads(self) -> bool:
        return self is LockMode.ACCESS_EXCLUSIVE

    @property
    def blocks_writes(self) -> bool:
        return self >= LockMode.SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one statement does to one relation that existed before it, predicted or measured."""

    relation: str
    lock: LockMode
    held_s: float | None  # None: predicted
    rewrites: bool
    scans: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEffects:
    """One statement and what it did on the clone."""

    line: int
    statement: str
    seconds: float
    wal_bytes: int
    rows: int | None
    effects: tuple[Effect, ...]


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
            return _has_option(node, "concurrently") or node.get("kind") in whole
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


def _has_option(node: Node, name: str) -> bool:
    options = [option["DefElem"] for option in node.get("params", [])]
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
