"""One statement where it stands: what rules look at, and the words for what it holds up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from airlock.effects import Effect, Prediction, Relation, World
from airlock.lint import sql
from airlock.lint.above import Above
from airlock.lint.finding import Policy
from airlock.lint.script import Place, Script
from airlock.syntax import Node, Statement

Work = Literal["rewrite", "build", "scan"]

# What one busy server does in a second, in bytes, to say whether it is moments or minutes.
RATES: dict[Work, int] = {"rewrite": 50_000_000, "build": 60_000_000, "scan": 400_000_000}
_WHILE: dict[Work, str] = {
    "rewrite": "while every row is written anew",
    "build": "while the index is built",
    "scan": "while every row is read",
}

NEXT = "-- In the next migration:"
LATER = "-- In a later deploy, when no running code needs the old one:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A statement, or one command of an ALTER TABLE, in the world that it meets.

    kind, node: the statement's, or those of the command.
    above: what stands above it in the same transaction.
    """

    script: Script
    place: Place
    statement: Statement
    prediction: Prediction
    world: World
    policy: Policy
    kind: str
    node: Node
    above: Above

    @property
    def range_var(self) -> Node:
        """The relation that the statement works on; empty where it names none or several."""
        return self.statement.node.get("relation", {})

    @property
    def table(self) -> str:
        """That relation as the statement names it."""
        return sql.qualified(self.range_var)

    @property
    def short_table(self) -> str:
        """Its name alone, to make other names of."""
        return self.range_var.get("relname", "")

    @property
    def definition(self) -> Node:
        """What an ALTER TABLE's command adds: a column, constraint or partition."""
        nothing: Node = {}
        found: Node = self.node.get("def", nothing)
        return next(iter(found.values()), nothing)

    @property
    def touches_existing(self) -> bool:
        """Whether anybody but this migration may know what it works on."""
        return bool(self.prediction.effects)

    @property
    def relation(self) -> Relation | None:
        """What is known of the relation that it works on."""
        return self.known(self.range_var) if self.range_var else None

    def known(self, range_var: Node) -> Relation | None:
        return self.world.relations.get(self.world.key(range_var))

    @property
    def partitions(self) -> list[str]:
        """The partitions that its relation is known to have."""
        relation = self.relation
        if relation is None or not relation.is_partitioned:
            return []
        return [each.name for each in self.world.children(relation.key)]

    @property
    def certain(self) -> bool:
        """Whether it is known that rows are read or written, and not only possible."""
        return any(each.rewrites or each.scans for each in self.prediction.effects)

    @property
    def work(self) -> Work | None:
        """What takes time while others wait; None where they wait for moments, or not at all.

        What is unknown may be.
        """
        effects = [each for each in self.prediction.effects if each.lock is not None]
        if not any(each.blocks_writes for each in effects) or self._is_of_new:
            return None
        if self.prediction.builds or self.kind == "ReindexStmt":
            return "build"
        if any(each.rewrites is not False for each in effects if each.blocks_writes):
            return "rewrite"
        return "scan" if any(each.scans is not False for each in effects) else None

    @property
    def _is_of_new(self) -> bool:
        """Whether its rows are those of a new table, and others are locked for its sake alone."""
        relation = self.relation
        is_new = relation is not None and relation.new
        return is_new and self.kind in ("AT_AddConstraint", "AT_AddColumn", "CreateStmt")

    @property
    def holds(self) -> str:
        """A sentence: who waits for what, and for how long."""
        return self.waiting(self.work)

    def waiting(self, work: Work | None) -> str:
        """The sentence of ``holds``, for another work than the effects tell."""
        if not (waits := ", ".join(_waits(self.prediction.effects, self.world.indexes))):
            return ""
        waits = waits[0].upper() + waits[1:]
        if work is None:
            return (
                f"{waits}; for moments only, but everybody queues behind it while it waits "
                "for the lock."
            )
        return f"{waits}, {_WHILE[work]}: {self._duration(work)}."

    def _duration(self, work: Work) -> str:
        worked = [each for each in self.prediction.effects if each.rewrites or each.scans]
        names = [each.relation for each in worked if each.relation] or self.prediction.builds
        sizes = [size for name in names if (size := self._size_bytes(name)) is not None]
        if not sizes:
            return "how long depends on the table's size, which --target or --database tells"
        size, rate = max(sizes), RATES[work]
        seconds = size / rate
        long = "under 1 s" if seconds < 1 else f"about {spoken(seconds)}"
        return f"{long} for {megabytes(size)} at {megabytes(rate)}/s"

    def _size_bytes(self, name: str) -> int | None:
        """Of a relation as the effects call it."""
        found = (each for each in self.world.relations.values() if each.name == name)
        relation = self.world.relations.get(name) or next(found, None)
        return relation.size_bytes if relation else None

    def key_of(self, range_var: Node) -> str:
        """A column to cut a table by: of a unique index where one is known, or ``id``."""
        relation = self.known(range_var)
        known = relation.indexes.values() if relation else ()
        for index in sorted(known, key=lambda each: not each.primary):
            if index.unique and index.valid and not index.partial and len(index.columns) == 1:
                return sql.ident(index.columns[0] or "id")
        return "id"

    def backfill(self, statement: str) -> str:
        """The statement as a migration that runs in batches."""
        key = self.key_of(self.range_var)
        return f"-- Airlock: backfill table={self.table} key={key} batch=5000\n{statement};"


def _waits(effects: Sequence[Effect], indexes: Collection[str]) -> Iterator[str]:
    """Who waits for which relations, by lock mode; indexes only where no table is locked."""
    blocking = [each for each in effects if each.blocks_writes]
    tables = [each for each in blocking if each.relation not in indexes] or blocking
    for mode in sorted({each.lock for each in tables if each.lock is not None}, reverse=True):
        who = "nobody reads or writes" if mode.blocks_reads else "nobody writes"
        names = [each.relation or "what it touches" for each in tables if each.lock == mode]
        more = f" and {len(names) - 3} more" if names[3:] else ""
        yield f"{who} {', '.join(names[:3])}{more} ({mode.pg_name})"


def spoken(seconds: float) -> str:
    """``12 s``, ``4 min`` or ``3 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def megabytes(size: int) -> str:
    """``40 kB``, ``160 MB`` or ``1.6 GB``."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1000:.0f} kB"
