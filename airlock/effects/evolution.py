"""What a statement makes of the world: relations that come, go, or are others afterwards.

Only what predictions ask for. The statements of one text meet what those before them made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airlock.effects.datatype import Domain
from airlock.effects.expressions import as_not_null, columns_of
from airlock.effects.names import listed, names_of
from airlock.effects.world import TEMPORARY, Column, Constraint, Index, Relation, World
from airlock.syntax import Node, Statement, walk

_LETTERS = {
    "CONSTR_CHECK": "c",
    "CONSTR_FOREIGN": "f",
    "CONSTR_PRIMARY": "p",
    "CONSTR_UNIQUE": "u",
    "CONSTR_EXCLUSION": "x",
    "CONSTR_NOTNULL": "n",
}
_INDEXED = ("p", "u", "x")
_SUFFIXES = {"c": "check", "f": "fkey", "p": "pkey", "u": "key", "x": "excl", "n": "not_null"}


def evolve(statement: Statement, world: World) -> None:
    """Go on to the world after the statement, as far as it matters to predictions."""
    handler = _HANDLERS.get(statement.kind)
    if handler is not None:
        handler(statement.node, world)


# ---------------------------------------------------------------- what comes


def _create_table(node: Node, world: World) -> None:
    relation = _new_relation(node["relation"], world)
    if relation is None:
        return
    relation.kind = "partitioned table" if "partspec" in node else "table"
    parts = [each["PartitionElem"] for each in node.get("partspec", {}).get("partParams", [])]
    relation.partition_key = tuple(each.get("name", "") for each in parts)
    relation.unlogged = node["relation"].get("relpersistence") == "u"
    if "ofTypename" in node:
        relation.of = world.type_of(node["ofTypename"]).name
    for each in node.get("inhRelations", []):
        parent = world.relation(world.key(each["RangeVar"]))
        if parent is not None:
            _put_below(parent, relation, node.get("partbound"), world)
    for each in node.get("tableElts", []):
        _add_element(each, relation, world)
    # An empty table has no row that a constraint could be wrong about.
    for constraint in relation.constraints.values():
        constraint.valid = True


def _create_foreign_table(node: Node, world: World) -> None:
    _create_table(node["base"], world)
    relation = world.relations.get(world.key(node["base"]["relation"]))
    if relation is not None and relation.new:
        relation.kind = "foreign table"
        for index in list(relation.indexes.values()):
            _drop_index(index, world)


def _new_relation(range_var: Node, world: World) -> Relation | None:
    """A relation that did not exist; None where IF NOT EXISTS finds one."""
    schema = range_var.get("schemaname") or next(iter(world.search_path), "public")
    schema = TEMPORARY if range_var.get("relpersistence") == "t" else schema
    key = f"{schema}.{range_var['relname']}"
    if key in world.relations and world.relations[key].known:
        return None
    name = world.shown(key)
    world.relations[key] = Relation(key=key, name=name, new=True, rows=0, size_bytes=0)
    return world.relations[key]


def _put_below(parent: Relation, child: Relation, bound: Node | None, world: World) -> None:
    if any(each is parent for each in world.tree(child.key)):
        return  # PostgreSQL refuses a circle
    world.put_below(child, parent.key)
    if bound is not None:
        child.partition_of = parent.key
        child.default_partition = bool(bound.get("is_default"))
    for name, column in parent.columns.items():
        child.columns.setdefault(
            name, Column(name=name, type=column.type, not_null=column.not_null)
        )
    for index in parent.indexes.values() if bound is not None else ():
        _put_index_below(index, child, world)


def _put_index_below(index: Index, partition: Relation, world: World) -> None:
    """A partition has an index of its own for each of its table, unless it has the like."""
    for each in partition.indexes.values():
        if each.columns == index.columns and each.parent is None:
            each.parent = index.key
            return
    name = _name_below(index, partition, world)
    made = _put_index(name, partition, index.columns, world, unique=index.unique)
    made.mentions, made.partial, made.parent = index.mentions, index.partial, index.key
    for child in world.children(partition.key):
        if child.partition_of is not None:
            _put_index_below(made, child, world)


def _name_below(index: Index, partition: Relation, world: World) -> str:
    """As a constraint's where it belongs to one."""
    table = world.relations.get(index.table)
    constraints = table.constraints.values() if table is not None else ()
    kinds = [each.kind for each in constraints if each.index == index.key]
    kind = next((each for each in kinds if each in _INDEXED), None)
    if kind is not None:
        return _default_name(partition, index.columns, kind)
    named = [each or "expr" for each in index.columns]
    return "_".join([partition.key.split(".", 1)[1], *named, "idx"])


def _add_element(element: Node, relation: Relation, world: World) -> None:
    if "ColumnDef" in element:
        _add_column(element["ColumnDef"], relation, world)
    elif "Constraint" in element:
        _add_constraint(element["Constraint"], relation, world)
    elif "TableLikeClause" in element:
        like = world.relation(world.key(element["TableLikeClause"]["relation"]))
        for name, column in like.columns.items() if like is not None else ():
            relation.columns[name] = Column(name=name, type=column.type, not_null=column.not_null)


def _add_column(column: Node, relation: Relation, world: World) -> None:
    name = column["colname"]
    type_name = column.get("typeName")
    found = world.type_of(type_name) if type_name else None
    made = Column(name=name, type=found, not_null=found is not None and found.is_serial)
    relation.columns.setdefault(name, made)
    for each in column.get("constraints", []):
        constraint = each["Constraint"]
        kind = constraint["contype"]
        made.not_null = made.not_null or kind in ("CONSTR_NOTNULL", "CONSTR_IDENTITY")
        made.virtual = made.virtual or constraint.get("generated_kind") == "v"
        _add_constraint(constraint, relation, world, column=name)


def _add_constraint(
    constraint: Node, relation: Relation, world: World, *, column: str | None = None
) -> None:
    kind = _LETTERS.get(constraint["contype"])
    if kind is None:
        return
    columns = tuple(_columns(constraint, relation, column))
    valid = not constraint.get("skip_validation")
    name = constraint.get("conname") or _default_name(relation, columns, kind)
    made = Constraint(name=name, kind=kind, table=relation.key, columns=columns, valid=valid)
    if kind == "f":
        _refer(made, constraint, world)
        made.on_delete = constraint.get("fk_del_action", "a")
        made.on_update = constraint.get("fk_upd_action", "a")
    elif kind == "c":
        made.not_null = as_not_null(constraint.get("raw_expr", {}))
    elif kind == "n":
        made.not_null = columns[:1]
    else:
        made.index = _index_behind(made, constraint, relation, world)
    relation.constraints[name] = made
    for each in columns if kind == "p" or (kind == "n" and valid) else ():
        if each in relation.columns:
            relation.columns[each].not_null = True


def _refer(made: Constraint, constraint: Node, world: World) -> None:
    made.references = world.key(constraint["pktable"])
    other = world.relations.get(made.references)
    keys = [each for each in other.constraints.values() if each.kind in _INDEXED] if other else []
    named = tuple(listed(constraint.get("pk_attrs", [])))
    for each in keys:
        if each.columns == named or (not named and each.kind == "p"):
            made.referenced, made.index = each.columns, each.index
    made.referenced = made.referenced or named


def _columns(constraint: Node, relation: Relation, column: str | None) -> Iterator[str]:
    if column is not None:
        yield column
        return
    found = listed(constraint.get("fk_attrs", constraint.get("keys", [])))
    yield from found
    if constraint["contype"] == "CONSTR_CHECK":
        named = {each for _, each in columns_of(constraint.get("raw_expr"))}
        yield from sorted(named & relation.columns.keys() if relation.known else named)


def _default_name(relation: Relation, columns: tuple[str, ...], kind: str) -> str:
    table = relation.key.split(".", 1)[1]
    parts = [table, *(columns if kind != "p" else ()), _SUFFIXES[kind]]
    return "_".join(parts)


def _index_behind(made: Constraint, constraint: Node, relation: Relation, world: World) -> str:
    schema = relation.key.split(".", 1)[0]
    if "indexname" in constraint:
        found = world.indexes.get(f"{schema}.{constraint['indexname']}")
        if found is not None:
            made.columns = found.columns
            _rename_index(found, made.name, world)
            return found.key
    return _put_index(made.name, relation, made.columns, world, unique=made.kind != "x").key


def _put_index(
    name: str, relation: Relation, columns: tuple[str, ...], world: World, *, unique: bool
) -> Index:
    key = f"{relation.key.split('.', 1)[0]}.{name}"
    made = Index(
        key=key,
        name=world.shown(key),
        table=relation.key,
        columns=columns,
        mentions=frozenset(columns),
        unique=unique,
        new=True,
    )
    relation.indexes[key] = world.indexes[key] = made
    return made


def _create_as(node: Node, world: World) -> None:
    relation = _new_relation(node["into"]["rel"], world)
    if relation is not None and node.get("objtype") == "OBJECT_MATVIEW":
        relation.kind = "materialized view"
        _reads(relation, node["query"], world)


def _select_into(node: Node, world: World) -> None:
    if "intoClause" in node:
        _new_relation(node["intoClause"]["rel"], world)


def _create_view(node: Node, world: World) -> None:
    relation = _new_relation(node["view"], world)
    if relation is None and node.get("replace"):
        relation = world.relations[world.key(node["view"])]
        relation.reads.clear()
    if relation is not None:
        relation.kind = "view"
        _reads(relation, node["query"], world)


def _reads(relation: Relation, query: Node, world: World) -> None:
    relation.query = query.get("SelectStmt")
    columns = {column for _, column in columns_of(query)}
    for name, node in walk(query):
        if name == "RangeVar":
            key = world.key(node)
            if key == relation.key or any(each.key == key for each in world.views_on(relation.key)):
                relation.query = None  # a circle, which nobody can read
            else:
                relation.reads[key] = columns


def _create_index(node: Node, world: World) -> None:
    relation = world.relation(world.key(node["relation"]))
    if relation is None:
        return
    parts = [each["IndexElem"] for each in node.get("indexParams", [])]
    columns = tuple(each.get("name", "") for each in parts)
    named = [each or "expr" for each in columns]
    name = node.get("idxname") or "_".join([relation.key.split(".", 1)[1], *named, "idx"])
    if f"{relation.key.split('.', 1)[0]}.{name}" in world.indexes:
        return
    made = _put_index(name, relation, columns, world, unique=bool(node.get("unique")))
    made.partial = "whereClause" in node
    mentioned = {column for _, column in columns_of([parts, node.get("whereClause")])}
    made.mentions = frozenset({*columns, *mentioned} - {""})
    for child in world.children(relation.key) if node["relation"].get("inh") else ():
        if child.partition_of is not None:
            _put_index_below(made, child, world)


def _create_function(node: Node, world: World) -> None:
    name = listed(node["funcname"])[-1]
    options = {each["DefElem"]["defname"]: each["DefElem"] for each in node.get("options", [])}
    said = options.get("volatility", {}).get("arg", {}).get("String", {}).get("sval", "volatile")
    is_sql = options.get("language", {}).get("arg", {}).get("String", {}).get("sval") == "sql"
    world.functions[name] = "u" if is_sql and said == "volatile" else said[0]
    world.own_functions.add(name)


def _create_domain(node: Node, world: World) -> None:
    constraints = [each["Constraint"]["contype"] for each in node.get("constraints", [])]
    constrained = any(kind in ("CONSTR_CHECK", "CONSTR_NOTNULL") for kind in constraints)
    key = _own_key(listed(node["domainname"]), world)
    base = world.type_of(node["typeName"])
    world.domains[key] = Domain(base=base, constrained=constrained)


def _create_type(node: Node, world: World) -> None:
    named = node.get("typeName")
    parts = listed(named) if named else [node["typevar"]["relname"]]
    world.types.add(_own_key(parts, world))


def _own_key(parts: list[str], world: World) -> str:
    schema = parts[-2] if len(parts) > 1 else next(iter(world.search_path), "public")
    return f"{schema}.{parts[-1]}"


def _create_statistics(node: Node, world: World) -> None:
    for each in node.get("relations", []):
        if "RangeVar" in each:
            key = _own_key(listed(node.get("defnames", [])) or [""], world)
            world.statistics[key] = world.key(each["RangeVar"])


def _create_trigger(node: Node, world: World) -> None:
    relation = world.relation(world.key(node["relation"]))
    if relation is not None:
        relation.triggers[node["trigname"]] = ".".join(listed(node["funcname"]))


def _create_rule(node: Node, world: World) -> None:
    relation = world.relation(world.key(node["relation"]))
    if relation is not None:
        relation.rules.add(f"{node['event'].removeprefix('CMD_').title()}Stmt")


# ---------------------------------------------------------------- what changes


def _alter_table(node: Node, world: World) -> None:
    relation = world.relation(world.key(node["relation"]))
    if relation is None or node.get("objtype") == "OBJECT_TYPE":
        return
    for each in node["cmds"]:
        command = each["AlterTableCmd"]
        handler = _COMMANDS.get(command["subtype"])
        if handler is not None:
            down = world.tree(relation.key) if node["relation"].get("inh") else [relation]
            for target in list(down):
                handler(command, target, world)


def _alter_add_column(command: Node, relation: Relation, world: World) -> None:
    _add_column(command["def"]["ColumnDef"], relation, world)


def _alter_drop_column(command: Node, relation: Relation, world: World) -> None:
    name = command["name"]
    relation.columns.pop(name, None)
    for index in [each for each in relation.indexes.values() if name in each.mentions]:
        _drop_index(index, world)
    for each in [each for each in relation.constraints.values() if name in each.columns]:
        del relation.constraints[each.name]


def _alter_type(command: Node, relation: Relation, world: World) -> None:
    column = relation.columns.setdefault(command["name"], Column(name=command["name"]))
    column.type = world.type_of(command["def"]["ColumnDef"]["typeName"])


def _alter_not_null(command: Node, relation: Relation, world: World) -> None:
    column = relation.columns.setdefault(command["name"], Column(name=command["name"]))
    column.not_null = command["subtype"] == "AT_SetNotNull"


def _alter_add_constraint(command: Node, relation: Relation, world: World) -> None:
    constraint = command["def"]["Constraint"]
    down = constraint["contype"] in ("CONSTR_CHECK", "CONSTR_NOTNULL") or (
        constraint["contype"] == "CONSTR_FOREIGN" and relation.partition_of is not None
    )
    if down or not any(parent in world.relations for parent in relation.parents):
        _add_constraint(constraint, relation, world)


def _alter_drop_constraint(command: Node, relation: Relation, world: World) -> None:
    gone = relation.constraints.pop(command["name"], None)
    index = world.indexes.get(gone.index or "") if gone is not None else None
    if index is not None and gone is not None and gone.kind in _INDEXED:
        _drop_index(index, world)


def _alter_validate(command: Node, relation: Relation, world: World) -> None:
    constraint = relation.constraints.get(command["name"])
    if constraint is None:
        return
    constraint.valid = True
    for each in constraint.not_null if constraint.kind == "n" else ():
        if each in relation.columns:
            relation.columns[each].not_null = True


def _alter_attach(command: Node, relation: Relation, world: World) -> None:
    partition = command["def"]["PartitionCmd"]
    child = world.relation(world.key(partition["name"]))
    if child is not None and relation.key not in child.parents and child is not relation:
        _put_below(relation, child, partition.get("bound", {}), world)


def _alter_detach(command: Node, relation: Relation, world: World) -> None:
    child = world.relation(world.key(command["def"]["PartitionCmd"]["name"]))
    if child is not None and relation.key in child.parents:
        child.parents.remove(relation.key)
        child.partition_of = None


def _alter_unlogged(command: Node, relation: Relation, world: World) -> None:
    relation.unlogged = command["subtype"] == "AT_SetUnLogged"


_COMMANDS: dict[str, Callable[[Node, Relation, World], None]] = {
    "AT_AddColumn": _alter_add_column,
    "AT_DropColumn": _alter_drop_column,
    "AT_AlterColumnType": _alter_type,
    "AT_SetNotNull": _alter_not_null,
    "AT_DropNotNull": _alter_not_null,
    "AT_AddConstraint": _alter_add_constraint,
    "AT_DropConstraint": _alter_drop_constraint,
    "AT_ValidateConstraint": _alter_validate,
    "AT_AttachPartition": _alter_attach,
    "AT_DetachPartition": _alter_detach,
    "AT_SetLogged": _alter_unlogged,
    "AT_SetUnLogged": _alter_unlogged,
}


def _alter_domain(node: Node, world: World) -> None:
    key = _own_key(listed(node["typeName"]), world)
    known = world.domains.get(key)
    if known is not None and node.get("subtype") in ("C", "O"):
        world.domains[key] = Domain(base=known.base, constrained=True)


def _rename(node: Node, world: World) -> None:
    kind = node["renameType"]
    if kind == "OBJECT_COLUMN":
        for each in world.tree(world.key(node["relation"])):
            _rename_column(each, node["subname"], node["newname"])
    elif kind == "OBJECT_TABCONSTRAINT":
        relation = world.relation(world.key(node["relation"]))
        gone = relation.constraints.pop(node["subname"], None) if relation else None
        if relation is not None and gone is not None:
            gone.name = node["newname"]
            relation.constraints[gone.name] = gone
    elif kind == "OBJECT_INDEX":
        index = world.indexes.get(world.key(node["relation"]))
        if index is not None:
            _rename_index(index, node["newname"], world)
    elif "relation" in node and kind in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW"):
        _move(world, world.key(node["relation"]), name=node["newname"])


def _rename_column(relation: Relation, old: str, new: str) -> None:
    column = relation.columns.pop(old, None)
    if column is not None:
        column.name = new
        relation.columns[new] = column
    for index in relation.indexes.values():
        index.columns = tuple(new if each == old else each for each in index.columns)
        index.mentions = frozenset(new if each == old else each for each in index.mentions)
    for constraint in relation.constraints.values():
        constraint.columns = tuple(new if each == old else each for each in constraint.columns)
        constraint.not_null = tuple(new if each == old else each for each in constraint.not_null)


def _rename_index(index: Index, new: str, world: World) -> None:
    del world.indexes[index.key]
    relation = world.relations.get(index.table)
    if relation is not None:
        relation.indexes.pop(index.key, None)
    index.key = f"{index.key.split('.', 1)[0]}.{new}"
    index.name = world.shown(index.key)
    world.indexes[index.key] = index
    if relation is not None:
        relation.indexes[index.key] = index


def _move(world: World, key: str, *, name: str = "", schema: str = "") -> None:
    """A relation has another name, or lies in another schema. Whatever points to it follows."""
    relation = world.relation(key)
    if relation is None:
        return
    del world.relations[key]
    old_schema, old_name = key.split(".", 1)
    relation.key = f"{schema or old_schema}.{name or old_name}"
    relation.name = world.shown(relation.key)
    world.relations[relation.key] = relation
    world.move_parent(key, relation.key)
    for each in world.relations.values():
        if key in each.reads:
            each.reads[relation.key] = each.reads.pop(key)
        for constraint in each.constraints.values():
            constraint.table = relation.key if constraint.table == key else constraint.table
            constraint.references = (
                relation.key if constraint.references == key else constraint.references
            )
    for index in relation.indexes.values():
        index.table = relation.key


def _set_schema(node: Node, world: World) -> None:
    if "relation" in node:
        _move(world, world.key(node["relation"]), schema=node["newschema"])


def _text(value: Node) -> str | None:
    return value.get("A_Const", {}).get("sval", {}).get("sval")


def _set(node: Node, world: World) -> None:
    if node.get("name") == "search_path":
        said = [_text(each) or "" for each in node.get("args", [])]
        parts = [part.strip().strip('"') for each in said for part in each.split(",")]
        world.search_path = tuple(part for part in parts if part and part != "$user")
    elif str(node.get("name", "")).lower() == "timezone":
        said = [_text(each) for each in node.get("args", [])]
        world.time_zone = said[0] if said else None


# ---------------------------------------------------------------- what goes


def _drop(node: Node, world: World) -> None:
    for each in names_of(node):
        key = world.find(each.schema, each.name)
        if node["removeType"] == "OBJECT_INDEX" and key in world.indexes:
            _drop_index(world.indexes[key], world)
        elif node["removeType"] in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW"):
            _drop_relation(key, world)
        elif node["removeType"] == "OBJECT_TRIGGER":
            relation = world.relation(world.find(each.schema, each.owner))
            if relation is not None:
                relation.triggers.pop(each.name, None)


def _drop_relation(key: str, world: World) -> None:
    relation = world.relations.pop(key, None)
    if relation is None:
        return
    for index in relation.indexes.values():
        world.indexes.pop(index.key, None)
    for child in world.children(key):
        _drop_relation(child.key, world)
    for constraint in world.referencing(key):
        world.relations[constraint.table].constraints.pop(constraint.name, None)


def _drop_index(index: Index, world: World) -> None:
    for each in list(world.index_tree(index)):
        world.indexes.pop(each.key, None)
        relation = world.relations.get(each.table)
        if relation is not None:
            relation.indexes.pop(each.key, None)


_HANDLERS: dict[str, Callable[[Node, World], None]] = {
    "AlterDomainStmt": _alter_domain,
    "AlterObjectSchemaStmt": _set_schema,
    "AlterTableStmt": _alter_table,
    "CompositeTypeStmt": _create_type,
    "CreateDomainStmt": _create_domain,
    "CreateEnumStmt": _create_type,
    "CreateForeignTableStmt": _create_foreign_table,
    "CreateFunctionStmt": _create_function,
    "CreateStatsStmt": _create_statistics,
    "CreateStmt": _create_table,
    "CreateTableAsStmt": _create_as,
    "CreateTrigStmt": _create_trigger,
    "DropStmt": _drop,
    "IndexStmt": _create_index,
    "RenameStmt": _rename,
    "RuleStmt": _create_rule,
    "SelectStmt": _select_into,
    "VariableSetStmt": _set,
    "ViewStmt": _create_view,
}
