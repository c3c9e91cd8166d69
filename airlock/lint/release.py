"""What all files together bring, for the rules that look at more than one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from airlock import syntax
from airlock.effects import World
from airlock.lint import sql
from airlock.lint.column import columns
from airlock.lint.site import Site
from airlock.syntax import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """Columns that refer to another table. table, referenced: their keys in the world."""

    site: Site
    table: str
    columns: tuple[str, ...]
    referenced: str


@dataclass(slots=True, kw_only=True)
class Release:
    """The statements of all files, and what of them other statements have to know.

    indexes: of each table, the columns of the indexes that the files make.
    added: of each table that was there, what it gains. contracts: what such a table loses.
    """

    world: World
    sites: list[Site] = field(default_factory=list[Site])
    foreign_keys: list[ForeignKey] = field(default_factory=list[ForeignKey])
    indexes: dict[str, list[tuple[str, ...]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[str, ...]]](list)
    )
    added: dict[str, list[tuple[Site, str]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[Site, str]]](list)
    )
    contracts: list[tuple[Site, str, str]] = field(default_factory=list[tuple[Site, str, str]])

    def by_script(self) -> Iterator[list[Site]]:
        for _, sites in groupby(self.sites, key=lambda site: site.script.file):
            yield list(sites)

    def take(self, site: Site) -> None:
        """Remember what a statement, or a command of it, adds and takes away."""
        match site.kind:
            case "IndexStmt":
                parts = [each["IndexElem"].get("name", "") for each in site.node["indexParams"]]
                self._index(site, tuple(parts))
            case "CreateStmt" | "AT_AddConstraint" | "AT_AddColumn":
                self._constraints(site)
            case "AT_DropColumn":
                self._contract(site, site.node["name"])
            case "RenameStmt" if site.node.get("renameType") == "OBJECT_COLUMN":
                self._contract(site, site.node["subname"])
            case _:
                pass
        if site.kind == "AT_AddColumn" and site.touches_existing:
            column = site.definition.get("colname", "")
            self.added[site.world.key(site.range_var)].append((site, sql.ident(column)))

    def _contract(self, site: Site, column: str) -> None:
        if site.touches_existing:
            table = site.world.key(site.range_var)
            self.contracts.append((site, table, sql.ident(column)))

    def _index(self, site: Site, names: tuple[str, ...]) -> None:
        # One that leaves out nulls serves whoever looks a value up.
        if _mentioned(site.node.get("whereClause")) <= set(names):
            self.indexes[site.world.key(site.range_var)].append(names)

    def _constraints(self, site: Site) -> None:
        for column in columns(site):
            for each in column.constraints:
                self._constraint(site, each, (column.plain,))
        for each in site.node.get("tableElts", ()):
            if "Constraint" in each:
                self._constraint(site, each["Constraint"], ())
        if site.kind == "AT_AddConstraint":
            self._constraint(site, site.definition, ())

    def _constraint(self, site: Site, node: Node, own: tuple[str, ...]) -> None:
        kind = node.get("contype")
        if kind in ("CONSTR_PRIMARY", "CONSTR_UNIQUE"):
            self._index(site, own or sql.strings(node.get("keys", ())))
        elif kind == "CONSTR_FOREIGN":
            self.foreign_keys.append(
                ForeignKey(
                    site=site,
                    table=site.world.key(site.range_var),
                    columns=own or sql.strings(node.get("fk_attrs", ())),
                    referenced=site.world.key(node["pktable"]),
                )
            )


def _mentioned(condition: Node | None) -> set[str]:
    """The columns that a condition names."""
    found = (node for name, node in syntax.walk(condition) if name == "ColumnRef")
    return {name for node in found for name in sql.strings(node["fields"])[-1:]}
