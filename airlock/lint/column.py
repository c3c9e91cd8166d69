"""A column as a statement defines it, in the statement's own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airlock.lint import sql
from airlock.lint.site import Site
from airlock.syntax import Node, Statement

SERIALS = {
    "smallserial": "smallint", "serial2": "smallint",
    "serial": "integer", "serial4": "integer",
    "bigserial": "bigint", "serial8": "bigint",
}  # fmt: skip
INTEGERS = {"int2": "smallint", "int4": "integer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One ColumnDef. type: its type's last name as the grammar has it, such as ``int4``."""

    statement: Statement
    node: Node

    @property
    def plain(self) -> str:
        return self.node.get("colname", "")

    @property
    def name(self) -> str:
        return sql.ident(self.plain)

    @property
    def type(self) -> str:
        names = sql.strings(self.node.get("typeName", {}).get("names", ()))
        return names[-1] if names else ""

    @property
    def is_array(self) -> bool:
        return bool(self.node.get("typeName", {}).get("arrayBounds"))

    @property
    def written_type(self) -> str:
        """The type as it was written, ``numeric(10, 2)[]``."""
        place = self.node.get("typeName", {}).get("location")
        return self.type if place is None else sql.piece(self.statement, place, self._type_ends)

    def retyped(self, type_: str) -> str:
        """The whole statement, with another type for this column."""
        place = self.node["typeName"]["location"]
        return sql.replaced(self.statement, place, self._type_ends, type_)

    @property
    def _type_ends(self) -> int | None:
        """Where something else begins behind the type."""
        place = self.node["typeName"]["location"]
        stops = [each["location"] for each in self._parts if each.get("location", 0) > place]
        return min(stops, default=None)

    @property
    def _parts(self) -> Iterator[Node]:
        """What may stand behind the type."""
        yield from self.constraints
        if "collClause" in self.node:
            yield self.node["collClause"]

    @property
    def constraints(self) -> list[Node]:
        return [each["Constraint"] for each in self.node.get("constraints", ())]

    def constraint(self, *kinds: str) -> Node | None:
        """Its first constraint of these kinds: ``CONSTR_DEFAULT``."""
        return next((each for each in self.constraints if each.get("contype") in kinds), None)

    def written(self, constraint: Node) -> str:
        """A constraint as it was written, up to the next one."""
        place = constraint.get("location", 0)
        later = [each["location"] for each in self.constraints if each.get("location", 0) > place]
        return sql.piece(self.statement, place, min(later, default=None))

    def without(self, *kinds: str) -> str:
        """The definition as it was written, without constraints of these kinds."""
        kept = [self.written(each) for each in self.constraints if each["contype"] not in kinds]
        return " ".join([self.name, self.written_type, *kept])


def columns(site: Site) -> Iterator[Column]:
    """The columns that a CREATE TABLE or a command of ALTER TABLE defines."""
    if site.kind == "CreateStmt":
        for each in site.node.get("tableElts", ()):
            if "ColumnDef" in each:
                yield Column(statement=site.statement, node=each["ColumnDef"])
    elif "ColumnDef" in site.node.get("def", {}):
        name = site.node.get("name")
        node = site.definition if "colname" in site.definition else _named(site.definition, name)
        yield Column(statement=site.statement, node=node)


def _named(definition: Node, name: str | None) -> Node:
    return {**definition, "colname": name or ""}
