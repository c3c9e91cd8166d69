"""What one statement touches: the few things that PostgreSQL does with relations.

Every rule of the model is made of these: lock a relation, or the tree below it; its indexes;
rewrite or scan it; build an index; read or write its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airlock.effects.effect import Effect, LockMode
from airlock.effects.world import Index, Relation, World


@dataclass(slots=True)
class _Touch:
    lock: LockMode
    rewrites: bool | None = False
    scans: bool | None = False


@dataclass(slots=True)
class Touches:
    """Collects them; of several locks on one relation the strongest counts."""

    world: World
    _found: dict[str, _Touch] = field(default_factory=dict[str, _Touch])
    new: dict[str, None] = field(default_factory=dict[str, None])
    builds: dict[str, None] = field(default_factory=dict[str, None])
    drops: dict[str, None] = field(default_factory=dict[str, None])
    breaks: dict[str, None] = field(default_factory=dict[str, None])
    alone: bool = False  # refused in a transaction for what the relation is
    unknown: list[str] = field(default_factory=list[str])

    # ------------------------------------------------------------ one relation

    def lock(
        self,
        relation: Relation | Index,
        mode: LockMode,
        *,
        rewrites: bool | None = False,
        scans: bool | None = False,
    ) -> None:
        """The relation is locked; None where nobody can tell whether it is rewritten or scanned.

        Sequences and composite types keep nobody waiting and are left out.
        """
        if isinstance(relation, Relation) and relation.kind in ("sequence", "composite type"):
            return
        if relation.new:
            self.new[relation.name] = None
            return
        touch = self._found.setdefault(relation.name, _Touch(mode))
        touch.lock = max(touch.lock, mode)
        touch.rewrites = _either(touch.rewrites, rewrites)
        touch.scans = _either(touch.scans, scans)

    def lock_tree(self, key: str, mode: LockMode, *, scans: bool | None = False) -> None:
        """It and all below it; only what holds rows is scanned."""
        for each in self.world.tree(key):
            self.lock(each, mode, scans=scans if holds_rows(each) else False)

    def lock_indexes(
        self, relation: Relation, mode: LockMode, *, rewrites: bool | None = False
    ) -> None:
        for each in relation.indexes.values():
            self.lock(each, mode, rewrites=rewrites if holds_rows(relation) else False)

    def rewrite(self, relation: Relation, *, certain: bool | None = True) -> None:
        """A new file for it and for each of its indexes. certain: None where nobody can tell."""
        if not holds_rows(relation):
            return self.lock(relation, LockMode.ACCESS_EXCLUSIVE)
        self.lock(relation, LockMode.ACCESS_EXCLUSIVE, rewrites=certain, scans=certain)
        if certain is not False:
            self.lock_indexes(relation, LockMode.ACCESS_EXCLUSIVE, rewrites=certain)
        return None

    def build(self, relation: Relation, mode: LockMode) -> None:
        """An index is built on it: all of it is read."""
        self.lock(relation, mode, scans=holds_rows(relation))
        if not relation.new:
            self.builds[relation.name] = None

    def use(self, relation: Relation, mode: LockMode, *, scans: bool | None = False) -> None:
        """Its rows are read or changed by a query: the planner opens every index."""
        self.lock(relation, mode, scans=scans if holds_rows(relation) else False)
        # Since 16 it looks at those of partitioned tables, too.
        if not relation.is_partitioned or self.world.major >= 16:
            self.lock_indexes(relation, mode)

    def drop(self, relation: Relation, *, cascade: bool = False) -> None:
        """It goes, with its indexes, and out of whatever points to it. cascade: with its views."""
        self.lock_views(self.world.views_on(relation.key) if cascade else ())
        self.lock(relation, LockMode.ACCESS_EXCLUSIVE)
        self.lock_indexes(relation, LockMode.ACCESS_EXCLUSIVE)
        for parent in relation.parents if relation.partition_of else ():
            self.lock(self.world.relations[parent], LockMode.ACCESS_EXCLUSIVE)
        for constraint in relation.constraints.values():
            # Of a foreign key that a partition has from its table, the other side knows nothing.
            if constraint.references is not None and not self.world.is_inherited(constraint):
                self.lock_tree(constraint.references, LockMode.ACCESS_EXCLUSIVE)
        for constraint in self.world.referencing(relation.key):
            self.lock_key(constraint.table, LockMode.ACCESS_EXCLUSIVE)
        for child in self.world.children(relation.key):
            self.drop(child, cascade=cascade)

    def drop_index(self, index: Index) -> None:
        """It goes, and those of the partitions with it."""
        for each in self.world.index_tree(index):
            self.lock_key(each.table, LockMode.ACCESS_EXCLUSIVE)
            self.lock(each, LockMode.ACCESS_EXCLUSIVE)

    # ------------------------------------------------------------ by name

    def lock_key(self, key: str | None, mode: LockMode) -> None:
        """The relation of that key, if there is one."""
        if key is not None and (found := self.world.relation(key)) is not None:
            self.lock(found, mode)

    def lock_default(self, table: Relation, *, scans: bool = True) -> None:
        """The default partition: its rows are looked through for those that go elsewhere now."""
        for child in self.world.children(table.key):
            if child.default_partition:
                self.lock_tree(child.key, LockMode.ACCESS_EXCLUSIVE, scans=scans)

    def lock_referencing(self, table: Relation) -> None:
        """The tables that refer to a partitioned one, when it gets another partition."""
        for constraint in self.world.referencing(table.key):
            self.lock_key(constraint.table, LockMode.SHARE_ROW_EXCLUSIVE)

    def lock_views(self, views: Iterable[Relation]) -> None:
        """Views that go with what they read."""
        for each in views:
            self.drop(each)

    def merge(self, inner: Touches, *, scans: bool | None = True) -> None:
        """What an inner query touches. scans: None where an outer one may spare it its scans."""
        for name, touch in inner._found.items():
            found = self._found.setdefault(name, _Touch(touch.lock))
            found.lock = max(found.lock, touch.lock)
            found.scans = _either(found.scans, touch.scans and scans)
        self.unknown += inner.unknown

    # ------------------------------------------------------------ the end

    def effects(self) -> tuple[Effect, ...]:
        """On each relation that was there before, by name; one without a name for the unknown."""
        found = [
            Effect(
                relation=name,
                lock=touch.lock,
                held_s=None,
                rewrites=touch.rewrites,
                scans=touch.scans,
            )
            for name, touch in sorted(self._found.items())
        ]
        if self.unknown:
            found.append(Effect(relation=None, lock=None, held_s=None, rewrites=None, scans=None))
        return tuple(found)


def holds_rows(relation: Relation) -> bool:
    """Whether it has a file of its own: a partitioned table has none, nor has a view."""
    return relation.kind in ("table", "materialized view")


def _either(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return None if one is None or other is None else False
