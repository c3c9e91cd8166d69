"""The relations that statements meet, as far as they are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from airlock.effects import datatype
from airlock.effects.datatype import Domain, Type
from airlock.syntax import Node, Statement

Kind = Literal[
    "table",
    "partitioned table",
    "foreign table",
    "view",
    "materialized view",
    "sequence",
    "composite type",
]

TEMPORARY = "pg_temp"
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(slots=True, kw_only=True)
class Column:
    """One column; its type is None where nobody said."""

    name: str
    type: Type | None = None
    not_null: bool = False
    virtual: bool = False  # generated, and not stored


@dataclass(slots=True, kw_only=True)
class Index:
    """One index. columns: its key columns in order, "" for an expression.

    mentions: every column in its key, its expressions and its predicate.
    """

    key: str
    name: str
    table: str
    columns: tuple[str, ...] = ()
    mentions: frozenset[str] = frozenset()
    unique: bool = False
    primary: bool = False
    valid: bool = True
    partial: bool = False
    new: bool = False
    parent: str | None = None


@dataclass(slots=True, kw_only=True)
class Constraint:
    """One constraint of a table. kind: as in pg_constraint.contype, such as ``f``.

    index: the key of the index behind it. not_null: the columns that it says are there.
    """

    name: str
    kind: str
    table: str
    columns: tuple[str, ...] = ()
    valid: bool = True
    index: str | None = None
    references: str | None = None
    referenced: tuple[str, ...] = ()
    on_delete: str = "a"
    on_update: str = "a"
    not_null: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Relation:
    """A table or view. rows and size in bytes with its partitions; None: unknown.

    known: whether its columns, indexes and constraints are. of: the composite type it is made of.
    definition, query: of a view, its SELECT, as text or as a tree.
    partition_key: the columns by which it is partitioned, "" for an expression.
    reads: of a view, the columns that it reads by relation.
    triggers: the function that each runs. rules: the statements
        that a rule rewrites.
    """

    key: str
    name: str
    kind: Kind = "table"
    new: bool = False  # made by the statements, so nobody waits for it
    known: bool = True
    unlogged: bool = False
    rows: int | None = None
    size_bytes: int | None = None
    of: str | None = None
    definition: str | None = None
    query: Node | None = None
    partition_of: str | None = None
    default_partition: bool = False
    partition_key: tuple[str, ...] = ()
    parents: list[str] = field(default_factory=list[str])
    columns: dict[str, Column] = field(default_factory=dict[str, Column])
    indexes: dict[str, Index] = field(default_factory=dict[str, Index])
    constraints: dict[str, Constraint] = field(default_factory=dict[str, Constraint])
    reads: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    triggers: dict[str, str] = field(default_factory=dict[str, str])
    rules: set[str] = field(default_factory=set[str])

    @property
    def is_partitioned(self) -> bool:
        return self.kind == "partitioned table"


@dataclass(slots=True, kw_only=True)
class World:
    """What is there before the statements, and after those that were predicted.

    major: the server's version. complete: read from a database; otherwise a relation that is not
        known is taken for an existing table of which nothing is known.
    functions: the volatility (``i``, ``s``, ``v``; ``u`` for unknown) of those that are not
        PostgreSQL's own, and of PostgreSQL's volatile ones, by name without schema. own_functions:
        the former.
    """

    major: int
    complete: bool = False
    search_path: tuple[str, ...] = ("public",)
    time_zone: str | None = None
    relations: dict[str, Relation] = field(default_factory=dict[str, Relation])
    indexes: dict[str, Index] = field(default_factory=dict[str, Index])
    statistics: dict[str, str] = field(default_factory=dict[str, str])
    domains: dict[str, Domain] = field(default_factory=dict[str, Domain])
    types: set[str] = field(default_factory=set[str])  # enums and composite types
    functions: dict[str, str] = field(default_factory=dict[str, str])
    own_functions: set[str] = field(default_factory=set[str])
    # Of each parent's key, its children by identity; some of them are elsewhere by now.
    _below: dict[str, dict[int, Relation]] = field(default_factory=dict[str, dict[int, Relation]])

    # ------------------------------------------------------------ names

    def key(self, node: Node) -> str:
        """``schema.name`` of a RangeVar, found along the search path.

        One that is to be temporary hides those of its name.
        """
        if node.get("relpersistence") == "t":
            return f"{TEMPORARY}.{node['relname']}"
        return self.find(node.get("schemaname", ""), node["relname"])

    def find(self, schema: str, name: str) -> str:
        """The key of a relation or index; where it would be made when it is not there."""
        if schema:
            return f"{schema}.{name}"
        keys = [f"{each}.{name}" for each in self.search_path]
        if (temporary := f"{TEMPORARY}.{name}") in self.relations:
            return temporary
        found = (key for key in keys if key in self.relations or key in self.indexes)
        return next(found, keys[0] if keys else f"public.{name}")

    def name(self, range_var: Node) -> str:
        """``schema.name`` of a RangeVar as the effects call it, quoted where that is needed."""
        return self.shown(self.key(range_var))

    def shown(self, key: str) -> str:
        """A key with quotes where they are needed."""
        known = self.relations.get(key) or self.indexes.get(key)
        if known is not None:
            return known.name
        return ".".join(quoted(part) for part in key.split(".", 1))

    def type_of(self, type_name: Node) -> Type:
        """The type that a TypeName means here."""
        return datatype.from_tree(type_name, self.own_type)

    def own_type(self, name: str) -> str:
        """The key of a type that is not PostgreSQL's own."""
        keys = [f"{schema}.{name}" for schema in self.search_path] or [f"public.{name}"]
        found = (key for key in keys if key in self.domains or key in self.types)
        return next(found, keys[0])

    def is_constrained(self, type_: Type) -> bool:
        """Whether a value is checked: of a domain with constraints, or of a domain over one."""
        domain = None if type_.array else self.domains.get(type_.name)
        return domain is not None and (domain.constrained or self.is_constrained(domain.base))

    def domains_over(self, key: str) -> set[str]:
        """The domain of that key and those that are made of it."""
        found = {key}
        while (
            more := {name for name, each in self.domains.items() if each.base.name in found} - found
        ):
            found |= more
        return found

    # ------------------------------------------------------------ what is there

    def relation(self, key: str) -> Relation | None:
        """The relation of that key; None when it is known not to be there."""
        found = self.relations.get(key)
        if found is None and not self.complete and key not in self.indexes:
            found = self.relations[key] = Relation(key=key, name=self.shown(key), known=False)
        return found

    def children(self, key: str) -> list[Relation]:
        """Partitions and inheriting tables, one level down."""
        return [
            each
            for each in self._below.get(key, {}).values()
            if key in each.parents and self.relations.get(each.key) is each
        ]

    def put_below(self, child: Relation, parent: str) -> None:
        """The relation is a partition of, or inherits from, the one of that key."""
        child.parents.append(parent)
        self._below.setdefault(parent, {})[id(child)] = child

    def move_parent(self, old: str, new: str) -> None:
        """A relation has another key; what is below it stays below it."""
        for child in self.children(old):
            child.parents.remove(old)
            self.put_below(child, new)

    def tree(self, key: str) -> Iterator[Relation]:
        """The relation and all below it."""
        top = self.relation(key)
        if top is not None:
            yield top
            for child in self.children(key):
                yield from self.tree(child.key)

    def parts(self, key: str) -> Iterator[Relation]:
        """The relation and its partitions; what only inherits from it is left out."""
        for each in self.tree(key):
            if each.key == key or each.partition_of is not None:
                yield each

    def index_tree(self, index: Index) -> Iterator[Index]:
        """The index and those of the partitions that belong to it."""
        yield index
        for each in self.indexes.values():
            if each.parent == index.key:
                yield from self.index_tree(each)

    def referencing(self, key: str) -> list[Constraint]:
        """The foreign keys of other tables, and its own, that point to a table."""
        return [
            constraint
            for relation in self.relations.values()
            for constraint in relation.constraints.values()
            if constraint.references == key
        ]

    def is_inherited(self, constraint: Constraint) -> bool:
        """Whether a partition has it from the table that it belongs to."""
        table = self.relations.get(constraint.table)
        above = self.relations.get((table.partition_of if table else None) or "")
        return above is not None and any(
            (each.kind, each.columns, each.references)
            == (constraint.kind, constraint.columns, constraint.references)
            for each in above.constraints.values()
        )

    def views_on(self, key: str, column: str | None = None) -> Iterator[Relation]:
        """The views that read a relation, or one column of it, and the views on those."""
        for each in self.relations.values():
            if key in each.reads and (column is None or column in each.reads[key]):
                yield each
                yield from self.views_on(each.key)

    def apply(self, statement: Statement) -> None:
        """Go on to the world after the statement."""
        from airlock.effects.evolution import evolve

        evolve(statement, self)


def quoted(name: str) -> str:
    """A part of a name as SQL wants it, but for the rare name that is a keyword."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
