"""ALTER TABLE: each subcommand's lock, what it reads or rewrites, and whom else it touches.

The strongest lock that any of its subcommands needs is taken first, on the table and on whatever
below it a subcommand goes down to.
https://www.postgresql.org/docs/current/sql-altertable.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airlock.effects import datatype
from airlock.effects.datatype import needs_rewrite
from airlock.effects.effect import LockMode
from airlock.effects.expressions import is_volatile
from airlock.effects.names import listed
from airlock.effects.touches import Touches, holds_rows
from airlock.effects.world import Index, Relation, World
from airlock.syntax import Node

_WEAK = LockMode.SHARE_UPDATE_EXCLUSIVE
_MIDDLE = LockMode.SHARE_ROW_EXCLUSIVE
_STRONG = LockMode.ACCESS_EXCLUSIVE

# Those that need less than ACCESS EXCLUSIVE, whatever they say.
_LOCKS = {
    "AT_SetStatistics": _WEAK,
    "AT_SetOptions": _WEAK,
    "AT_ResetOptions": _WEAK,
    "AT_ClusterOn": _WEAK,
    "AT_DropCluster": _WEAK,
    "AT_ValidateConstraint": _WEAK,
    "AT_AttachPartition": _WEAK,
    "AT_DetachPartitionFinalize": _WEAK,
    "AT_EnableTrig": _MIDDLE,
    "AT_EnableAlwaysTrig": _MIDDLE,
    "AT_EnableReplicaTrig": _MIDDLE,
    "AT_EnableTrigAll": _MIDDLE,
    "AT_EnableTrigUser": _MIDDLE,
    "AT_DisableTrig": _MIDDLE,
    "AT_DisableTrigAll": _MIDDLE,
    "AT_DisableTrigUser": _MIDDLE,
}
# Options that readers and writers look at while they work.
_STRONG_OPTIONS = {
    "autosummarize",
    "buffering",
    "check_option",
    "fastupdate",
    "gin_pending_list_limit",
    "pages_per_range",
    "security_barrier",
    "security_invoker",
    "user_catalog_table",
}
# Those that go down to partitions and inheriting tables.
_DOWN = {
    "AT_AddColumn",
    "AT_AlterColumnType",
    "AT_AddConstraint",
    "AT_ColumnDefault",
    "AT_DropColumn",
    "AT_DropConstraint",
    "AT_DropExpression",
    "AT_DropNotNull",
    "AT_SetExpression",
    "AT_SetNotNull",
    "AT_SetStatistics",
    "AT_SetStorage",
    "AT_ValidateConstraint",
}
_DOWN_TO_PARTITIONS = {*(name for name in _LOCKS if "Trig" in name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """One subcommand in its place."""

    touches: Touches
    top: Relation
    node: Node
    lock: LockMode
    goes_down: bool  # not ONLY
    beside: list[Node]  # all subcommands of the statement

    @property
    def world(self) -> World:
        return self.touches.world

    @property
    def kind(self) -> str:
        return str(self.node["subtype"])

    @property
    def column(self) -> str:
        return str(self.node.get("name", ""))

    @property
    def definition(self) -> Node:
        """What stands behind ``def``, without the name of its kind."""
        return next(iter(self.node.get("def", {"": {}}).values()))

    @property
    def relations(self) -> list[Relation]:
        """The table, and those below that the subcommand goes down to."""
        return list(self.world.tree(self.top.key)) if self.goes_down else [self.top]

    def breaks(self, what: str) -> None:
        self.touches.breaks[what] = None


def touch(statement: Node, touches: Touches) -> None:
    """ALTER TABLE and its like on indexes, views, sequences and foreign tables."""
    world = touches.world
    key = world.key(statement["relation"])
    commands = [each["AlterTableCmd"] for each in statement["cmds"]]
    if key in world.indexes:
        return _alter_index(world.indexes[key], commands, touches)
    top = world.relation(key)
    if top is None or top.kind == "sequence":
        return None
    lock = max(_lock(each, top) for each in commands)
    only = not statement["relation"].get("inh")
    touches.lock(top, lock)
    for node in commands:
        command = _Command(
            touches=touches,
            top=top,
            node=node,
            lock=lock,
            beside=commands,
            goes_down=not only and _down(node, top, world.major),
        )
        for relation in command.relations:
            touches.lock(relation, lock)
        handler = _HANDLERS.get(command.kind)
        if handler is not None:
            handler(command)
    return None


def _lock(command: Node, top: Relation) -> LockMode:
    kind = command["subtype"]
    if kind in ("AT_SetRelOptions", "AT_ResetRelOptions"):
        items = command.get("def", {}).get("List", {}).get("items", [])
        names = {each["DefElem"]["defname"] for each in items}
        strong = top.kind == "view" or names & _STRONG_OPTIONS
        return _STRONG if strong else _WEAK
    if kind == "AT_DetachPartition":
        return _WEAK if _partition(command).get("concurrent") else _STRONG
    if kind == "AT_AddConstraint":
        return _MIDDLE if _constraint(command).get("contype") == "CONSTR_FOREIGN" else _STRONG
    return _LOCKS.get(kind, _STRONG)


def _down(command: Node, top: Relation, major: int) -> bool:
    kind = command["subtype"]
    if kind == "AT_AddConstraint" and major < 18:
        return _goes_down(_constraint(command), top)
    return kind in _DOWN or (kind in _DOWN_TO_PARTITIONS and _has_triggers(command, top))


def _has_triggers(command: Node, top: Relation) -> bool:
    """Whether partitions have triggers from their table that the subcommand means."""
    if not top.is_partitioned:
        return False
    if "name" in command or not top.known:
        return True
    keys = any(each.references is not None for each in top.constraints.values())
    return bool(top.triggers) or (keys and not str(command["subtype"]).endswith("User"))


def _goes_down(constraint: Node, top: Relation) -> bool:
    """Whether children get the constraint as well; 18 locks them in any case."""
    kind = constraint.get("contype")
    if kind == "CONSTR_FOREIGN":
        return top.is_partitioned
    return kind not in ("CONSTR_UNIQUE", "CONSTR_EXCLUSION") and not constraint.get("is_no_inherit")


def _partition(command: Node) -> Node:
    return command.get("def", {}).get("PartitionCmd", {})


def _constraint(command: Node) -> Node:
    return command.get("def", {}).get("Constraint", {})


# ---------------------------------------------------------------- columns


def _add_column(command: _Command) -> None:
    column = command.definition
    name = column["colname"]
    if command.node.get("missing_ok") and name in command.top.columns:
        return
    constraints = [each["Constraint"] for each in column.get("constraints", [])]
    default = _default(constraints)
    certain = _fills(command.world, column, constraints, default)
    for relation in command.relations:
        if certain is not False:
            command.touches.rewrite(relation, certain=certain)
        below = relation is not command.top
        if _checks_new_column(constraints, default, below=below):
            _scan(command, relation)
        indexed = not below or command.top.is_partitioned
        if indexed and any(each["contype"] in _INDEXED for each in constraints):
            command.touches.build(relation, command.lock)
    for each in constraints:
        if each["contype"] == "CONSTR_FOREIGN":
            _refer(command, each, checks=default is not None)


_INDEXED = ("CONSTR_PRIMARY", "CONSTR_UNIQUE")


def _default(constraints: list[Node]) -> Node | None:
    found = (each.get("raw_expr") for each in constraints if each["contype"] == "CONSTR_DEFAULT")
    default = next(found, None)
    return None if default == {"A_Const": {"isnull": True}} else default


def _fills(
    world: World, column: Node, constraints: list[Node], default: Node | None
) -> bool | None:
    """Whether each row gets a value of its own, which is written."""
    kinds = {each["contype"]: each for each in constraints}
    generated = kinds.get("CONSTR_GENERATED")
    if generated is not None:
        return generated.get("generated_kind", "s") != "v"
    found = world.type_of(column["typeName"])
    if "CONSTR_IDENTITY" in kinds or found.is_serial:
        return True
    if world.is_constrained(found):
        return True
    known = found.is_own or found.array or found.name in world.types or found.name in world.domains
    unsure = not known and not world.complete
    volatile = is_volatile(default, world)
    return None if unsure and not volatile else volatile


def _checks_new_column(constraints: list[Node], default: Node | None, *, below: bool) -> bool:
    kinds = {each["contype"] for each in constraints if not (below and each.get("is_no_inherit"))}
    return "CONSTR_CHECK" in kinds or (
        "CONSTR_NOTNULL" in kinds and default is None and "CONSTR_IDENTITY" not in kinds
    )


def _scan(command: _Command, relation: Relation) -> None:
    command.touches.lock(relation, command.lock, scans=holds_rows(relation))


def _drop_column(command: _Command) -> None:
    name, touches = command.column, command.touches
    if command.top.known and name not in command.top.columns:
        return
    touches.drops[f"column {command.top.name}.{name}"] = None
    command.breaks(f"column {command.top.name}.{name} is dropped")
    for relation in command.relations:
        for index in list(relation.indexes.values()):
            if name in index.mentions:
                touches.drop_index(index)
        for constraint in relation.constraints.values():
            if name in constraint.columns:
                touches.lock_key(constraint.references, _STRONG)
    for constraint in command.world.referencing(command.top.key):
        if name in constraint.referenced:
            touches.lock_key(constraint.table, _STRONG)
    if command.node.get("behavior") == "DROP_CASCADE":
        touches.lock_views(command.world.views_on(command.top.key, name))


def _set_not_null(command: _Command) -> None:
    for relation in command.relations:
        if not _is_there(relation, command.column):
            _scan(command, relation)


def _is_there(relation: Relation, column: str) -> bool:
    """Whether a constraint says already that the column has no nulls."""
    known = relation.columns.get(column)
    if known is not None and known.not_null:
        return True
    return any(each.valid and column in each.not_null for each in relation.constraints.values())


def _set_expression(command: _Command) -> None:
    for relation in command.relations:
        if not _is_virtual(relation, command.column):
            command.touches.rewrite(relation)


def _is_virtual(relation: Relation, column: str) -> bool:
    known = relation.columns.get(column)
    return known is not None and known.virtual


# ---------------------------------------------------------------- types


def _alter_type(command: _Command) -> None:
    definition, name = command.definition, command.column
    new = command.world.type_of(definition["typeName"])
    known = command.top.columns.get(name)
    old = known.type if known is not None else None
    certain = _changes_values(command, old, new)
    if old is None or str(old) != str(new):
        command.breaks(f"column {command.top.name}.{name} becomes {new}")
    collated = "collClause" in definition
    for relation in command.relations:
        if certain is not False:
            command.touches.rewrite(relation, certain=certain)
        for index in relation.indexes.values():
            if name in index.mentions:
                _make_again(command, relation, index, rebuilt=bool(certain) or collated)
        _check_again(command, relation, certain=certain)
    _revalidate(command, certain=certain)


def _changes_values(
    command: _Command, old: datatype.Type | None, new: datatype.Type
) -> bool | None:
    using = command.definition.get("raw_default")
    if using is not None and not _is_plain(using, command.column):
        return True
    if _is_virtual(command.top, command.column):
        return False
    if old is None:
        return None
    return needs_rewrite(old, new, command.world.domains, command.world.time_zone)


def _is_plain(using: Node, column: str) -> bool:
    """Whether USING names the column itself, at most cast."""
    while "TypeCast" in using:
        using = using["TypeCast"]["arg"]
    fields = using.get("ColumnRef", {}).get("fields", [])
    return bool(fields) and fields[-1].get("String", {}).get("sval") == column


def _make_again(command: _Command, relation: Relation, index: Index, *, rebuilt: bool) -> None:
    """An index of the column is dropped and made again; its file stays where the values do."""
    # The index of a partition is not recognised as the one that was there.
    rebuilt = (rebuilt or index.parent is not None) and holds_rows(relation)
    command.touches.lock(index, _STRONG, rewrites=rebuilt)
    if rebuilt:
        command.touches.build(relation, command.lock)


def _check_again(command: _Command, relation: Relation, *, certain: bool | None) -> None:
    """A CHECK on the column is dropped and made again, and made again it is checked."""
    if certain is False and any(
        each.kind == "c" and command.column in each.columns
        for each in relation.constraints.values()
    ):
        _scan(command, relation)


def _revalidate(command: _Command, *, certain: bool | None) -> None:
    """Foreign keys on the column are made again on both sides, and checked if values changed."""
    world, name = command.world, command.column
    for relation in command.relations:
        for each in relation.constraints.values():
            if each.references is not None and name in each.columns:
                _check_pair(command, relation, world.relation(each.references), certain)
    for each in world.referencing(command.top.key):
        if name in each.referenced and (other := world.relation(each.table)) is not None:
            _check_pair(command, other, command.top, certain)


def _check_pair(
    command: _Command, table: Relation, other: Relation | None, certain: bool | None
) -> None:
    for each in (table, other):
        if each is not None:
            command.touches.lock(each, _STRONG)
    if certain:
        _look_up(command.touches, table, other)


# ---------------------------------------------------------------- constraints


def _add_constraint(command: _Command) -> None:
    constraint = command.definition
    kind = constraint["contype"]
    if kind == "CONSTR_FOREIGN":
        _refer(command, constraint, checks=not constraint.get("skip_validation"))
    elif kind in ("CONSTR_PRIMARY", "CONSTR_UNIQUE", "CONSTR_EXCLUSION"):
        _add_indexed(command, constraint)
    elif kind in ("CONSTR_CHECK", "CONSTR_NOTNULL") and not constraint.get("skip_validation"):
        _add_checked(command, constraint)


def _add_checked(command: _Command, constraint: Node) -> None:
    if constraint["contype"] == "CONSTR_CHECK" and not constraint.get("is_enforced", True):
        return
    named = [part["String"]["sval"] for part in constraint.get("keys", [])]
    alone = constraint.get("is_no_inherit")
    for relation in [command.top] if alone else command.relations:
        if not (named and _is_there(relation, named[0])):
            _scan(command, relation)


def _add_indexed(command: _Command, constraint: Node) -> None:
    columns = [part["String"]["sval"] for part in constraint.get("keys", [])]
    index = _existing_index(command, constraint)
    if index is not None:
        command.touches.lock(index, _WEAK)
        columns = list(index.columns)
    partitions = command.world.children(command.top.key) if command.top.is_partitioned else []
    for relation in [] if index is not None else [command.top, *partitions]:
        command.touches.build(relation, LockMode.SHARE if relation in partitions else command.lock)
    if constraint["contype"] != "CONSTR_PRIMARY":
        return
    for relation in command.relations:
        if any(not _is_there(relation, column) for column in columns):
            _scan(command, relation)


def _existing_index(command: _Command, constraint: Node) -> Index | None:
    if "indexname" not in constraint:
        return None
    schema = command.top.key.split(".", 1)[0]
    key = f"{schema}.{constraint['indexname']}"
    return command.world.indexes.get(key) or Index(
        key=key, name=command.world.shown(key), table=command.top.key
    )


def _refer(command: _Command, constraint: Node, *, checks: bool) -> None:
    """A foreign key: both sides are locked against writes, and compared unless NOT VALID."""
    other = command.world.relation(command.world.key(constraint["pktable"]))
    if other is None:
        return
    command.touches.lock_tree(other.key, _MIDDLE)
    columns = set(listed(constraint.get("fk_attrs", [])))
    if checks and constraint.get("is_enforced", True):
        for relation in command.relations:
            if holds_rows(relation) and (relation is command.top or command.top.is_partitioned):
                known = relation.columns if relation.known else columns
                filled = None if not columns <= set(known) else True
                _look_up(command.touches, relation, other, filled=filled)


def _look_up(
    touches: Touches, table: Relation, other: Relation | None, *, filled: bool | None = True
) -> None:
    """Each row of the table looks for its counterpart: a join that the planner chooses.

    filled: None where the columns are new and may be null, so that there is nothing to look for.
    """
    touches.use(table, LockMode.ACCESS_SHARE, scans=True)
    if other is None:
        return
    for each in touches.world.tree(other.key):
        scans = _is_hashed(table, each)
        touches.use(each, LockMode.ACCESS_SHARE, scans=scans and filled)


def _is_hashed(table: Relation, other: Relation) -> bool | None:
    """Whether the whole other table is read, as it is unless few rows look up many."""
    if table.rows == 0:
        return False
    if other.partition_of is not None and not other.rows:
        return None
    if table.rows is None or other.rows is None:
        return True
    return table.rows > 0 and table.rows * 10 > other.rows


def _validate(command: _Command) -> None:
    added = _added_beside(command)
    for relation in command.relations:
        constraint = relation.constraints.get(command.column)
        if added is not None:
            _scan(command, relation)
            if added["contype"] == "CONSTR_FOREIGN":
                _refer(command, added, checks=True)
        elif constraint is None:
            if not relation.known:
                command.touches.lock(relation, command.lock, scans=None)
                command.touches.unknown.append("what the constraint refers to")
        elif not constraint.valid and constraint.references is None:
            _scan(command, relation)
        elif not constraint.valid and constraint.references is not None:
            other = command.world.relation(constraint.references)
            if other is not None:
                command.touches.lock(other, LockMode.ROW_SHARE)
            if holds_rows(relation):
                _look_up(command.touches, relation, other)


def _added_beside(command: _Command) -> Node | None:
    """The constraint of that name which the same statement adds."""
    added = map(_constraint, command.beside)
    return next((each for each in added if each.get("conname") == command.column), None)


def _drop_constraint(command: _Command) -> None:
    for relation in command.relations:
        constraint = relation.constraints.get(command.column)
        if constraint is None:
            continue
        if constraint.references is not None:
            command.touches.lock_tree(constraint.references, _STRONG)
        index = command.world.indexes.get(constraint.index or "")
        if index is not None and constraint.kind != "f":
            command.touches.drop_index(index)
            for each in command.world.referencing(relation.key):
                if each.index == index.key:
                    command.touches.lock_key(each.table, _STRONG)


def _alter_constraint(command: _Command) -> None:
    constraint = command.top.constraints.get(str(command.definition.get("conname", "")))
    if constraint is not None and command.definition.get("alterEnforceability"):
        other = command.world.relation(constraint.references or "")
        if not command.definition.get("is_enforced"):
            command.touches.lock_key(constraint.references, _STRONG)
        elif other is not None:
            command.touches.lock_tree(other.key, _MIDDLE)
            _look_up(command.touches, command.top, other)
    if command.definition.get("alterInheritability"):
        command.touches.lock_tree(command.top.key, _STRONG)


# ---------------------------------------------------------------- the table itself


def _attach(command: _Command) -> None:
    partition = command.definition
    table = command.world.relation(command.world.key(partition["name"]))
    if table is None:
        return
    for each in command.world.tree(table.key):
        # Whether a CHECK says the same as the bounds is for PostgreSQL to prove.
        command.touches.lock(each, _STRONG, scans=_attach_scans(command, each))
    command.touches.lock_default(command.top)
    command.touches.lock_referencing(command.top)
    for constraint in command.top.constraints.values():
        if (other := command.world.relation(constraint.references or "")) is not None:
            command.touches.lock_tree(other.key, _MIDDLE)
            for each in filter(holds_rows, command.world.tree(table.key)):
                _look_up(command.touches, each, other)
    for index in command.top.indexes.values():
        command.touches.lock(index, _WEAK)
        if not any(each.columns == index.columns for each in table.indexes.values()):
            command.touches.build(table, _STRONG)


def _attach_scans(command: _Command, table: Relation) -> bool | None:
    if not holds_rows(table):
        return False
    if any(each.kind == "c" and each.valid for each in table.constraints.values()):
        return None
    return True if table.known else None


def _detach(command: _Command) -> None:
    partition = command.world.relation(command.world.key(command.definition["name"]))
    if partition is None:
        return
    command.touches.lock_tree(partition.key, _STRONG)
    for index in partition.indexes.values():
        if index.parent is not None:
            command.touches.lock(index, _STRONG)
    if not command.definition.get("concurrent"):
        command.touches.lock_default(command.top, scans=False)
    for constraint in command.top.constraints.values():
        command.touches.lock_key(constraint.references, _MIDDLE)
    for constraint in command.world.referencing(command.top.key):
        # Its rows are looked through for those that refer to what goes.
        if (other := command.world.relation(constraint.table)) is not None:
            command.touches.lock(other, _STRONG, scans=holds_rows(other))


def _inherit(command: _Command) -> None:
    parent = command.world.relation(command.world.key(command.definition))
    weak = _WEAK if command.kind == "AT_AddInherit" else LockMode.ACCESS_SHARE
    if parent is not None:
        command.touches.lock(parent, weak)


def _owner(command: _Command) -> None:
    command.touches.lock_indexes(command.top, _STRONG)


def _persistence(command: _Command) -> None:
    unlogged = command.kind == "AT_SetUnLogged"
    if command.top.known and command.top.unlogged == unlogged:
        return
    command.touches.rewrite(command.top, certain=True if command.top.known else None)


def _tablespace(command: _Command) -> None:
    # All of it is copied, unless it is there already. Indexes stay where they are.
    moves = None if holds_rows(command.top) and command.column != "pg_default" else False
    command.touches.lock(command.top, _STRONG, rewrites=moves)


def _access_method(command: _Command) -> None:
    if command.column != "heap":
        command.touches.rewrite(command.top, certain=None)


def _cluster_on(command: _Command) -> None:
    _lock_own_index(command, command.column, _WEAK)


def _replica_identity(command: _Command) -> None:
    _lock_own_index(command, str(command.definition.get("name", "")), LockMode.SHARE)


def _lock_own_index(command: _Command, name: str, mode: LockMode) -> None:
    schema = command.top.key.split(".", 1)[0]
    index = command.world.indexes.get(f"{schema}.{name}")
    if index is not None:
        command.touches.lock(index, mode)


_HANDLERS: dict[str, Callable[[_Command], None]] = {
    "AT_AddColumn": _add_column,
    "AT_AddConstraint": _add_constraint,
    "AT_AddInherit": _inherit,
    "AT_AlterColumnType": _alter_type,
    "AT_AlterConstraint": _alter_constraint,
    "AT_AttachPartition": _attach,
    "AT_ChangeOwner": _owner,
    "AT_ClusterOn": _cluster_on,
    "AT_DetachPartition": _detach,
    "AT_DropColumn": _drop_column,
    "AT_DropConstraint": _drop_constraint,
    "AT_DropInherit": _inherit,
    "AT_ReplicaIdentity": _replica_identity,
    "AT_SetAccessMethod": _access_method,
    "AT_SetExpression": _set_expression,
    "AT_SetLogged": _persistence,
    "AT_SetNotNull": _set_not_null,
    "AT_SetTableSpace": _tablespace,
    "AT_SetUnLogged": _persistence,
    "AT_ValidateConstraint": _validate,
}


# ---------------------------------------------------------------- indexes


def _alter_index(index: Index, commands: list[Node], touches: Touches) -> None:
    for each in commands:
        kind = each["subtype"]
        if kind in ("AT_SetRelOptions", "AT_ResetRelOptions"):
            items = each.get("def", {}).get("List", {}).get("items", [])
            strong = {item["DefElem"]["defname"] for item in items} & _STRONG_OPTIONS
            touches.lock(index, _STRONG if strong else _WEAK)
        elif kind == "AT_AttachPartition":
            _attach_index(index, each["def"]["PartitionCmd"], touches)
        else:
            touches.lock(index, _LOCKS.get(kind, _STRONG))


def _attach_index(index: Index, partition: Node, touches: Touches) -> None:
    world = touches.world
    child = world.indexes.get(world.key(partition["name"]))
    touches.lock(index, _WEAK)
    touches.lock_key(index.table, LockMode.ACCESS_SHARE)
    if child is not None:
        touches.lock(child, _STRONG)
        touches.lock_key(child.table, LockMode.ACCESS_SHARE)
