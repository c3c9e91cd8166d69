"""The relations that statements meet, as far as they are known, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from airlock.syntax import Node, Statement

Kind = Literal["table", "partitioned table", "foreign table", "view", "materialized view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its type as format_type prints it, and whether it is NOT NULL."""

    name: str
    type: str
    not_null: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index of a table. columns: its key columns in order; "" for an expression."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    valid: bool = True
    partial: bool = False


@dataclass(slots=True, kw_only=True)
class Relation:
    """A table or view. rows and size in bytes with its partitions; None: unknown."""

    name: str
    kind: Kind = "table"
    new: bool = False  # made by the statements, so nobody waits for it
    rows: int | None = None
    size_bytes: int | None = None
    columns: dict[str, Column] = field(default_factory=dict[str, Column])
    indexes: dict[str, Index] = field(default_factory=dict[str, Index])


@dataclass(slots=True, kw_only=True)
class World:
    """What is there before the statements, and after those that were predicted.

    major: the server's version. complete: read from a database; otherwise a relation that is not
    known is taken for an existing table.
    """

    major: int
    complete: bool = False
    relations: dict[str, Relation] = field(default_factory=dict[str, Relation])

    def name(self, range_var: Node) -> str:
        """``schema.name`` of a RangeVar, as the effects call it."""
        raise NotImplementedError

    def relation(self, name: str) -> Relation | None:
        """The relation of that name; None when it is known not to be there."""
        raise NotImplementedError

    def apply(self, statement: Statement) -> None:
        """Go on to the world after the statement."""
        raise NotImplementedError
