"""SELECT, INSERT, UPDATE, DELETE, MERGE: which rows of which relations, and whether all are read.

Whether a table is read as a whole is the planner's choice. It is sure where nothing restricts the
rows, or where an index begins with a column that is compared with a value; None elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from airlock import syntax
from airlock.effects.effect import LockMode
from airlock.effects.expressions import columns_of, function_name, own_functions
from airlock.effects.touches import Touches, holds_rows
from airlock.effects.world import Constraint, Relation, World
from airlock.syntax import Node, walk

_READ, _ROW, _WRITE = LockMode.ACCESS_SHARE, LockMode.ROW_SHARE, LockMode.ROW_EXCLUSIVE
_WRITES = {"InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete"}


@dataclass(slots=True)
class _Level:
    """One FROM with its conditions."""

    relations: dict[str, Relation] = field(default_factory=dict[str, Relation])  # by alias
    only: set[str] = field(default_factory=set[str])
    conditions: list[Node] = field(default_factory=list[Node])
    limited: bool = False
    lock: LockMode = _READ
    for_update: tuple[Node, ...] = ()  # FOR UPDATE and its like

    def lock_of(self, alias: str) -> LockMode:
        """FOR UPDATE is for what stands in its OF, or for all."""
        for each in self.for_update:
            names = [named["RangeVar"]["relname"] for named in each.get("lockedRels", [])]
            if alias in names or not names:
                return max(_ROW, self.lock)
        return self.lock


def read(query: Node, touches: Touches, *, planned: bool = True, lock: LockMode = _READ) -> None:
    """A query, with everything below it. planned: it runs; otherwise it is only looked at."""
    kind, node = next(iter(query.items()))
    if kind in _WRITES or kind == "MergeStmt":
        return write(kind, node, touches)
    return _select(node, touches, planned=planned, lock=lock, hidden=frozenset())


def _select(
    node: Node, touches: Touches, *, planned: bool, lock: LockMode, hidden: frozenset[str]
) -> None:
    hidden |= _with(node, touches, hidden)
    for side in ("larg", "rarg"):
        if side in node:
            _select(node[side], touches, planned=planned, lock=lock, hidden=hidden)
    level = _Level(
        limited="limitCount" in node or _takes_ends(node),
        lock=lock,
        for_update=tuple(each["LockingClause"] for each in node.get("lockingClause", [])),
    )
    for each in node.get("fromClause", []):
        _from(each, level, touches, hidden, planned=planned)
    _add_condition(level, node.get("whereClause"))
    rest = {name: part for name, part in node.items() if name not in ("fromClause", "withClause")}
    _below(rest, touches, hidden, planned=planned)
    _use(level, touches, planned=planned)
    _say_functions(rest, touches)


def _takes_ends(node: Node) -> bool:
    """min() and max(), which an index may answer."""
    return any(
        name == "FuncCall" and function_name(call)[1] in ("min", "max")
        for name, call in walk(node.get("targetList", []))
    )


def _with(node: Node, touches: Touches, hidden: frozenset[str]) -> frozenset[str]:
    """WITH: its queries run; its names are no relations."""
    names = frozenset(
        each["CommonTableExpr"]["ctename"] for each in node.get("withClause", {}).get("ctes", [])
    )
    for each in node.get("withClause", {}).get("ctes", []):
        query = each["CommonTableExpr"]["ctequery"]
        kind, inner = next(iter(query.items()))
        if kind == "SelectStmt":
            _select(inner, touches, planned=True, lock=_READ, hidden=hidden | names)
        else:
            write(kind, inner, touches, hidden=hidden | names)
    return names


def _from(
    item: Node, level: _Level, touches: Touches, hidden: frozenset[str], *, planned: bool
) -> None:
    kind, node = next(iter(item.items()))
    if kind == "RangeVar":
        relation = _named(node, touches.world, hidden)
        if relation is not None:
            alias = node.get("alias", {}).get("aliasname", node["relname"])
            level.relations[alias] = relation
            if not node.get("inh"):
                level.only.add(alias)
    elif kind == "JoinExpr":
        _from(node["larg"], level, touches, hidden, planned=planned)
        _from(node["rarg"], level, touches, hidden, planned=planned)
        _add_condition(level, node.get("quals"))
        _below(node.get("quals", {}), touches, hidden, planned=planned)
    elif kind == "RangeSubselect":
        inner = node["subquery"]["SelectStmt"]
        lock = level.lock_of(node.get("alias", {}).get("aliasname", ""))
        _select(inner, touches, planned=planned, lock=lock, hidden=hidden)
    elif kind == "RangeTableSample":
        _from(node["relation"], level, touches, hidden, planned=planned)
        level.limited = True
    else:
        _below(node, touches, hidden, planned=planned)
        _say_functions(node, touches)


def _named(node: Node, world: World, hidden: frozenset[str]) -> Relation | None:
    if node["relname"] in hidden and "schemaname" not in node:
        return None
    if node.get("schemaname") in ("pg_catalog", "information_schema"):
        return None
    return world.relation(world.key(node))


def look(tree: object, touches: Touches) -> None:
    """The queries in a definition, which is kept and does not run now."""
    for name, node in walk(tree):
        if name == "SelectStmt":
            _select(node, touches, planned=False, lock=_READ, hidden=frozenset())


def _below(tree: object, touches: Touches, hidden: frozenset[str], *, planned: bool) -> None:
    """The subqueries of expressions."""
    for name, node in walk(tree):
        if name == "SubLink":
            inner = node["subselect"]["SelectStmt"]
            _select(inner, touches, planned=planned, lock=_READ, hidden=hidden)


def _say_functions(tree: object, touches: Touches) -> None:
    for each in own_functions(tree, touches.world):
        touches.unknown.append(f"what {each}() does")


# ---------------------------------------------------------------- which rows are read


def _add_condition(level: _Level, condition: Node | None) -> None:
    if not condition:
        return
    both = condition.get("BoolExpr", {})
    if both.get("boolop") == "AND_EXPR":
        for each in both["args"]:
            _add_condition(level, each)
    else:
        level.conditions.append(condition)


def _use(level: _Level, touches: Touches, *, planned: bool) -> None:
    scans = _scans(level)
    for alias in level.relations:
        certain = scans[alias] if planned else "not run"
        _use_one(level, alias, touches, level.lock_of(alias), scans=certain)


def _use_one(
    level: _Level,
    alias: str,
    touches: Touches,
    lock: LockMode,
    *,
    scans: bool | Literal["not run"] | None,
) -> None:
    relation = level.relations[alias]
    if scans == "not run":
        return touches.lock(relation, lock)
    if relation.is_partitioned and _prunes(level, alias):
        touches.unknown.append(f"which partitions of {relation.name} the conditions leave")
        return touches.use(relation, lock)
    for each in [relation] if alias in level.only else touches.world.tree(relation.key):
        _use_relation(each, touches, lock, scans=scans)
    return None


def _prunes(level: _Level, alias: str) -> bool:
    """Whether a condition may leave out partitions before they are locked."""
    key = level.relations[alias].partition_key
    return any(
        (column in key or "" in key) and _alias_of((table, column), level) == alias
        for condition in level.conditions
        if not _is_join(condition, level)
        for table, column in columns_of(condition)
    )


def _use_relation(
    relation: Relation, touches: Touches, lock: LockMode, *, scans: bool | None
) -> None:
    if relation.kind == "view":
        touches.lock(relation, lock)
        _expand(relation, touches, lock, scans=scans)
    else:
        touches.use(relation, lock, scans=scans)


def _expand(view: Relation, touches: Touches, lock: LockMode, *, scans: bool | None) -> None:
    """What a view reads; conditions from outside may reach into it."""
    query = query_of(view)
    if query is None:
        touches.unknown.append(f"what {view.name} reads")
        return
    inner = Touches(touches.world)
    _select(query, inner, planned=True, lock=lock, hidden=frozenset())
    touches.merge(inner, scans=True if scans else None)


def query_of(view: Relation) -> Node | None:
    """The SELECT behind a view or materialised view; None where nobody said."""
    if view.query is None and view.definition is not None:
        (statement,) = syntax.parse(view.definition)
        view.query = statement.node
    return view.query


def _scans(level: _Level) -> dict[str, bool | None]:
    """For each alias: whether all of the relation is read."""
    found: dict[str, bool | None] = {}
    restricted = {alias for alias in level.relations if _has_value(level, alias)}
    while True:
        more = {
            alias
            for alias in level.relations.keys() - restricted
            if _follows(level, alias, restricted)
        }
        if not more:
            break
        restricted |= more
    for alias, relation in level.relations.items():
        if alias in restricted:
            found[alias] = False
        elif (
            (level.conditions and (relation.kind == "view" or not relation.known))
            or level.limited
            or any(_may_use_index(each, relation, level) for each in level.conditions)
        ):
            found[alias] = None
        else:
            found[alias] = True
    return found


def _has_value(level: _Level, alias: str) -> bool:
    return any(
        not columns_elsewhere
        for column, columns_elsewhere in _comparisons(level, alias)
        if _leads_index(level.relations[alias], column)
    )


def _follows(level: _Level, alias: str, restricted: set[str]) -> bool:
    """Whether its rows are looked up by those of a restricted relation."""
    return any(
        elsewhere and elsewhere <= restricted
        for column, elsewhere in _comparisons(level, alias)
        if _leads_index(level.relations[alias], column)
    )


def _comparisons(level: _Level, alias: str) -> Iterator[tuple[str, set[str]]]:
    """Columns of a relation that are equal to something, and the aliases that this comes from."""
    for condition in level.conditions:
        test = condition.get("A_Expr", {})
        if test.get("kind") not in ("AEXPR_OP", "AEXPR_IN", "AEXPR_OP_ANY"):
            continue
        if [part["String"]["sval"] for part in test.get("name", [])][-1:] != ["="]:
            continue
        for one, other in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
            column = _column(test.get(one, {}), alias, level)
            if column is not None and "SubLink" not in str(test.get(other)):
                yield column, {_alias_of(each, level) for each in columns_of(test.get(other))}


def _column(node: Node, alias: str, level: _Level) -> str | None:
    if "ColumnRef" not in node:
        return None
    found = next(columns_of(node), None)
    return found[1] if found is not None and _alias_of(found, level) == alias else None


def _alias_of(reference: tuple[str, str], level: _Level) -> str:
    table, column = reference
    if table:
        return table
    owners = [alias for alias, each in level.relations.items() if column in each.columns]
    return owners[0] if owners else next(iter(level.relations), "")


def _leads_index(relation: Relation, column: str) -> bool:
    return any(
        each.columns[:1] == (column,) and each.valid and not each.partial
        for each in relation.indexes.values()
    )


def _may_use_index(condition: Node, relation: Relation, level: _Level) -> bool:
    """Whether some index could serve it: ranges, nulls, patterns, alternatives."""
    named = {column for _, column in columns_of(condition)}
    if _is_join(condition, level):
        return False
    return any(each.mentions & named for each in relation.indexes.values()) or (
        relation.partition_of is not None and bool(named)
    )


def _is_join(condition: Node, level: _Level) -> bool:
    """Whether it compares columns of two relations; of a WITH or subquery nobody knows the size."""
    test = condition.get("A_Expr", {})
    sides = [test.get(side, {}) for side in ("lexpr", "rexpr")]
    aliases = {_alias_of(each, level) for each in columns_of(sides)}
    return all("ColumnRef" in side for side in sides) and aliases <= level.relations.keys()


# ---------------------------------------------------------------- writing


def write(kind: str, node: Node, touches: Touches, *, hidden: frozenset[str] = frozenset()) -> None:
    """INSERT, UPDATE, DELETE or MERGE."""
    world = touches.world
    hidden |= _with(node, touches, hidden)
    target = _named(node["relation"], world, hidden)
    if target is not None and kind in target.rules:
        touches.lock(target, _WRITE)
        touches.unknown.append(f"what the rules of {target.name} make of it")
        return
    if kind == "InsertStmt":
        _insert(node, target, touches, hidden)
    else:
        _change(kind, node, target, touches, hidden)
    if target is not None:
        if kind != "DeleteStmt":
            _check_bounds(target, touches)
        _follow_keys(kind, node, target, touches)
        for function in target.triggers.values():
            touches.unknown.append(f"what the trigger's function {function}() does")


def _insert(node: Node, target: Relation | None, touches: Touches, hidden: frozenset[str]) -> None:
    if "selectStmt" in node:
        inner = node["selectStmt"]["SelectStmt"]
        _select(inner, touches, planned=True, lock=_READ, hidden=hidden)
    if target is None:
        return
    conflict = node.get("onConflictClause", {})
    _below([conflict, node.get("returningClause")], touches, hidden, planned=True)
    _say_functions([conflict, node.get("returningClause")], touches)
    touches.lock(target, _WRITE)
    for key in target.reads if target.kind == "view" else ():
        touches.lock_key(key, _WRITE)
    if target.is_partitioned and touches.world.children(target.key):
        touches.unknown.append("which partitions the rows belong to")
    _infer(conflict.get("infer", {}), target, touches)


def _infer(infer: Node, target: Relation, touches: Touches) -> None:
    """The indexes that are looked at for the one of ON CONFLICT."""
    if "conname" in infer:
        named = target.constraints.get(infer["conname"])
        index = touches.world.indexes.get((named.index if named else None) or "")
        if index is not None:
            touches.lock(index, _WRITE)
    elif infer:
        touches.lock_indexes(target, _WRITE)


def _change(
    kind: str, node: Node, target: Relation | None, touches: Touches, hidden: frozenset[str]
) -> None:
    level = _Level()
    if target is not None:
        name = node["relation"].get("alias", {}).get("aliasname", node["relation"]["relname"])
        level.relations[name] = target
        if not node["relation"].get("inh"):
            level.only.add(name)
    others = _Level()
    source = [node["sourceRelation"]] if kind == "MergeStmt" else []
    for each in [*source, *node.get("fromClause", []), *node.get("usingClause", [])]:
        _from(each, others, touches, hidden, planned=True)
    level.relations |= others.relations
    level.only |= others.only
    level.conditions += others.conditions
    _add_condition(level, node.get("whereClause") or node.get("joinCondition"))
    names = ("whereClause", "targetList", "returningClause", "joinCondition", "mergeWhenClauses")
    parts = [node.get(name) for name in names]
    _below(parts, touches, hidden, planned=True)
    _say_functions(parts, touches)
    scans = _scans(level)
    for alias, relation in level.relations.items():
        lock = _WRITE if relation is target else _READ
        certain = None if kind == "MergeStmt" and relation is target else scans[alias]
        _use_one(level, alias, touches, lock, scans=certain)


def _check_bounds(target: Relation, touches: Touches) -> None:
    """A partition's bounds are looked up in the table that it belongs to."""
    parent = target.partition_of
    while parent is not None:
        touches.lock_key(parent, _READ)
        above = touches.world.relations.get(parent)
        parent = above.partition_of if above is not None else None


def _follow_keys(kind: str, node: Node, target: Relation, touches: Touches) -> None:
    """Foreign keys are checked by queries of their own, for each row that changes."""
    # Which rows are new, and which are changed, is for the data to say.
    if kind == "MergeStmt" or "onConflictClause" in node:
        if _has_keys(target, touches.world):
            touches.unknown.append("which foreign keys the rows are checked by")
        return
    changed = {each["ResTarget"].get("name", "") for each in node.get("targetList", [])}
    for each in target.constraints.values():
        if each.references is not None and (
            kind == "InsertStmt" or (kind == "UpdateStmt" and changed & set(each.columns))
        ):
            _look_at(each.references, touches, _ROW)
    if kind not in ("UpdateStmt", "DeleteStmt"):
        return
    _follow_down(kind, target, changed, touches, frozenset())


def _follow_down(
    kind: str, target: Relation, changed: set[str], touches: Touches, above: frozenset[str]
) -> None:
    """Rows that refer to those that change are sought, and with ON DELETE CASCADE they go, too."""
    for each in touches.world.referencing(target.key):
        if kind != "DeleteStmt" and not changed & set(each.referenced):
            continue
        relation = touches.world.relation(each.table)
        sought = each.columns[0] if each.columns else ""
        # Without an index it is read as a whole for each row, if there is one.
        scans = False if relation is None or _leads_index(relation, sought) else None
        _look_at(each.table, touches, _answer(kind, each), scans=scans)
        goes = kind == "DeleteStmt" and each.on_delete == "c"
        if relation is not None and goes and relation.key not in above:
            _follow_down(kind, relation, set(), touches, above | {target.key})


def _has_keys(target: Relation, world: World) -> bool:
    own = any(each.references is not None for each in target.constraints.values())
    return own or bool(world.referencing(target.key))


def _answer(kind: str, constraint: Constraint) -> LockMode:
    action = constraint.on_delete if kind == "DeleteStmt" else constraint.on_update
    return _WRITE if action in ("c", "n", "d") else _ROW


def _look_at(key: str, touches: Touches, lock: LockMode, *, scans: bool | None = False) -> None:
    relation = touches.world.relation(key)
    if relation is not None:
        touches.use(relation, lock, scans=scans if holds_rows(relation) else None)
