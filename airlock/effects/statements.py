"""Every statement but ALTER TABLE and queries: which relations it locks, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airlock.effects import alter_table, queries
from airlock.effects.effect import LockMode
from airlock.effects.names import Name, listed, name_of, names_of
from airlock.effects.segments import has_option
from airlock.effects.touches import Touches, holds_rows
from airlock.effects.world import Index, Relation, World
from airlock.syntax import Node

_READ = LockMode.ACCESS_SHARE
_WEAK = LockMode.SHARE_UPDATE_EXCLUSIVE
_SHARE = LockMode.SHARE
_MIDDLE = LockMode.SHARE_ROW_EXCLUSIVE
_STRONG = LockMode.ACCESS_EXCLUSIVE


def touch(kind: str, node: Node, touches: Touches) -> None:
    """Collect what the statement does; what cannot be known is said."""
    if kind == "SelectStmt" or kind in _ROW_QUERIES:
        return queries.read({kind: node}, touches)
    handler = _HANDLERS.get(kind)
    if handler is not None:
        return handler(node, touches)
    if kind not in _NOTHING:
        touches.unknown.append(f"what {kind.removesuffix('Stmt')} does")
    return None


_ROW_QUERIES = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")


# ---------------------------------------------------------------- creating


def _create_table(node: Node, touches: Touches, *, indexed: bool = True) -> None:
    world = touches.world
    if _exists(node["relation"], world):
        return
    bound = node.get("partbound")
    for each in node.get("inhRelations", []):
        parent = world.relation(world.key(each["RangeVar"]))
        if parent is not None:
            _extend(parent, touches, partition=bound is not None, indexed=indexed)
    for each in node.get("tableElts", []):
        if "TableLikeClause" in each:
            touches.lock_key(world.key(each["TableLikeClause"]["relation"]), _READ)
    own = world.key(node["relation"])
    for constraint in _constraints(node):
        if constraint["contype"] == "CONSTR_FOREIGN" and world.key(constraint["pktable"]) != own:
            key = world.key(constraint["pktable"])
            if world.relation(key) is not None:
                touches.lock_tree(key, _MIDDLE)


def _create_foreign_table(node: Node, touches: Touches) -> None:
    # It gets no indexes from its parent.
    _create_table(node["base"], touches, indexed=False)


def _exists(range_var: Node, world: World) -> bool:
    known = world.relations.get(world.key(range_var))
    return known is not None and known.known


def _constraints(node: Node) -> Iterator[Node]:
    for each in node.get("tableElts", []):
        if "Constraint" in each:
            yield each["Constraint"]
        for inner in each.get("ColumnDef", {}).get("constraints", []):
            yield inner["Constraint"]


def _extend(parent: Relation, touches: Touches, *, partition: bool, indexed: bool) -> None:
    """A new child of a table: a partition keeps everybody out of its siblings' table."""
    if not partition:
        return touches.lock(parent, _WEAK)
    touches.lock(parent, _STRONG)
    for index in parent.indexes.values() if indexed else ():
        touches.lock(index, _WEAK)
    for constraint in parent.constraints.values():
        touches.lock_key(constraint.references, _MIDDLE)
    touches.lock_default(parent)
    touches.lock_referencing(parent)
    return None


def _create_as(node: Node, touches: Touches) -> None:
    if _exists(node["into"]["rel"], touches.world):
        return
    queries.read(node["query"], touches, planned=not node["into"].get("skipData"))


def _create_view(node: Node, touches: Touches) -> None:
    world = touches.world
    known = world.relations.get(world.key(node["view"]))
    if known is not None and known.kind == "view":
        touches.lock(known, _STRONG)
        touches.breaks[f"view {known.name} may have other columns"] = None
    queries.read(node["query"], touches, planned=False)


def _create_index(node: Node, touches: Touches) -> None:
    world = touches.world
    relation = world.relation(world.key(node["relation"]))
    if relation is None:
        return
    lock = _WEAK if node.get("concurrent") else _SHARE
    touches.lock(relation, lock)
    schema = relation.key.split(".", 1)[0]
    if f"{schema}.{node.get('idxname')}" in world.indexes and node.get("if_not_exists"):
        return
    only = relation.is_partitioned and not node["relation"].get("inh")
    for each in [relation] if only or not relation.is_partitioned else world.tree(relation.key):
        touches.build(each, lock)


def _create_trigger(node: Node, touches: Touches) -> None:
    relation = touches.world.relation(touches.world.key(node["relation"]))
    if relation is None:
        return
    down = touches.world.tree(relation.key) if relation.is_partitioned else [relation]
    for each in down if node.get("row") else [relation]:
        touches.lock(each, _MIDDLE)
    if "constrrel" in node:
        touches.lock_key(touches.world.key(node["constrrel"]), _READ)


def _create_rule(node: Node, touches: Touches) -> None:
    touches.lock_key(touches.world.key(node["relation"]), _STRONG)
    for action in node.get("actions", []):
        kind, inner = next(iter(action.items()))
        queries.look(action, touches)
        if kind in _ROW_QUERIES:
            touches.lock_key(touches.world.key(inner["relation"]), LockMode.ROW_EXCLUSIVE)


def _create_policy(node: Node, touches: Touches) -> None:
    touches.lock_key(touches.world.key(node["table"]), _STRONG)
    queries.look([node.get("qual"), node.get("with_check")], touches)


def _create_function(node: Node, touches: Touches) -> None:
    queries.look(node.get("sql_body"), touches)


def _create_statistics(node: Node, touches: Touches) -> None:
    for each in node.get("relations", []):
        if "RangeVar" in each:
            touches.lock_key(touches.world.key(each["RangeVar"]), _WEAK)


def _sequence(node: Node, touches: Touches) -> None:
    for each in node.get("options", []):
        option = each["DefElem"]
        words = listed(option.get("arg", {}).get("List", {}))
        if option["defname"] == "owned_by" and len(words) > 1:
            key = touches.world.find(words[-3] if len(words) > 2 else "", words[-2])
            touches.lock_key(key, _READ)


def _publication(node: Node, touches: Touches) -> None:
    for each in node.get("pubobjects", []):
        table = each["PublicationObjSpec"].get("pubtable", {})
        if "relation" in table:
            for relation in _meant(table["relation"], touches.world):
                touches.lock(relation, _WEAK)
    if node.get("action") == "AP_SetObjects":
        touches.unknown.append("which tables the publication had")


def _meant(range_var: Node, world: World) -> Iterator[Relation]:
    """A table and those that inherit from it, unless ONLY says so; a partitioned one alone."""
    relation = world.relation(world.key(range_var))
    if relation is not None and range_var.get("inh") and not relation.is_partitioned:
        yield from world.tree(relation.key)
    elif relation is not None:
        yield relation


def _create_schema(node: Node, touches: Touches) -> None:
    for each in node.get("schemaElts", []):
        kind, inner = next(iter(each.items()))
        touch(kind, inner, touches)


# ---------------------------------------------------------------- altering


def _alter_table(node: Node, touches: Touches) -> None:
    if node.get("objtype") != "OBJECT_TYPE":
        return alter_table.touch(node, touches)
    cascade = any(each["AlterTableCmd"].get("behavior") == "DROP_CASCADE" for each in node["cmds"])
    for each in _typed(node["relation"], touches) if cascade else ():
        schema, name = each.key.split(".", 1)
        table = {"schemaname": schema, "relname": name, "inh": True}
        alter_table.touch({**node, "relation": table}, touches)
    for command in node["cmds"]:
        if command["AlterTableCmd"]["subtype"] == "AT_DropColumn":
            name = command["AlterTableCmd"]["name"]
            touches.breaks[f"type {touches.world.name(node['relation'])} loses {name}"] = None
    return None


def _typed(type_name: Node, touches: Touches) -> list[Relation]:
    """The tables that are made OF a composite type."""
    key = touches.world.key(type_name)
    return [each for each in touches.world.relations.values() if each.of == key]


def _rename(node: Node, touches: Touches) -> None:
    kind, world = node["renameType"], touches.world
    if kind == "OBJECT_ATTRIBUTE":
        for each in _typed(node["relation"], touches):
            touches.lock(each, _STRONG)
    if "relation" not in node or kind in ("OBJECT_ATTRIBUTE", "OBJECT_SEQUENCE"):
        _say_renamed(kind, node, touches)
        return
    key = world.key(node["relation"])
    if key in world.indexes:
        touches.lock(world.indexes[key], _WEAK if kind == "OBJECT_INDEX" else _STRONG)
        return
    if kind == "OBJECT_INDEX" and not world.complete:
        touches.lock(Index(key=key, name=world.shown(key), table=""), _WEAK)
        return
    goes_down = kind in ("OBJECT_COLUMN", "OBJECT_TABCONSTRAINT")
    relation = world.relation(key)
    if relation is None:
        return
    down = world.tree(key) if goes_down or _is_cloned(kind, relation) else [relation]
    for each in down:
        touches.lock(each, _STRONG)
    if kind == "OBJECT_COLUMN":
        what = f"column {relation.name}.{node['subname']} is renamed to {node['newname']}"
        touches.breaks[what] = None
    elif kind in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW"):
        touches.breaks[f"{relation.kind} {relation.name} is renamed to {node['newname']}"] = None


def _is_cloned(kind: str, relation: Relation) -> bool:
    """Triggers of a partitioned table stand on each partition."""
    return kind == "OBJECT_TRIGGER" and relation.is_partitioned


def _say_renamed(kind: str, node: Node, touches: Touches) -> None:
    what = kind.removeprefix("OBJECT_").lower()
    if kind in ("OBJECT_TYPE", "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_SCHEMA"):
        touches.breaks[f"a {what} is renamed to {node.get('newname')}"] = None


def _rename_value(node: Node, touches: Touches) -> None:
    if "oldVal" in node:
        touches.breaks[f"enum value {node['oldVal']} is renamed to {node['newVal']}"] = None


def _set_schema(node: Node, touches: Touches) -> None:
    if "relation" in node:
        relation = touches.world.relation(touches.world.key(node["relation"]))
        if relation is not None and relation.kind != "sequence":
            touches.lock(relation, _STRONG)
            what = f"{relation.kind} {relation.name} moves to schema {node['newschema']}"
            touches.breaks[what] = None


def _alter_domain(node: Node, touches: Touches) -> None:
    """A constraint on a domain is checked against every column of it."""
    subtype = node.get("subtype")
    constraint = node.get("def", {}).get("Constraint", {})
    checks = subtype == "C" and not constraint.get("skip_validation")
    if not (checks or subtype in ("O", "V")):
        return
    words = listed(node["typeName"])
    _scan_columns_of(words, touches)


def _scan_columns_of(words: list[str], touches: Touches) -> None:
    world = touches.world
    key = ".".join(words) if len(words) > 1 else world.own_type(words[0])
    if not world.complete:
        touches.unknown.append(f"which tables have columns of {key}")
    domains = world.domains_over(key)
    for relation in world.relations.values():
        if any(
            each.type is not None and each.type.name in domains
            for each in relation.columns.values()
        ):
            touches.lock(relation, _SHARE, scans=holds_rows(relation))


def _comment(node: Node, touches: Touches) -> None:
    kind, world = node["objtype"], touches.world
    name = name_of(node.get("object", {}), kind)
    if name is None:
        return
    if kind in ("OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"):
        touches.lock_key(world.find(name.schema, name.owner), _READ)
    elif kind == "OBJECT_COLUMN":
        touches.lock_key(world.find(name.schema, name.owner), _WEAK)
    elif kind in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"):
        touches.lock_key(world.find(name.schema, name.name), _WEAK)
    elif kind == "OBJECT_INDEX":
        touches.lock(_index(name, touches), _WEAK)


def _index(name: Name, touches: Touches) -> Index:
    key = touches.world.find(name.schema, name.name)
    found = touches.world.indexes.get(key)
    return found or Index(key=key, name=touches.world.shown(key), table="")


def _grant(node: Node, touches: Touches) -> None:
    # Since 18 the relation is locked, so that two GRANTs do not meet.
    if touches.world.major < 18 or node.get("targtype") != "ACL_TARGET_OBJECT":
        return
    for each in node.get("objects", []):
        if "RangeVar" in each and node.get("objtype") == "OBJECT_TABLE":
            relation = touches.world.relation(touches.world.key(each["RangeVar"]))
            if relation is not None and relation.kind != "sequence":
                touches.lock(relation, _READ)


# ---------------------------------------------------------------- dropping


def _drop(node: Node, touches: Touches) -> None:
    kind = node["removeType"]
    cascade = node.get("behavior") == "DROP_CASCADE"
    for name in names_of(node):
        if kind in _TABLES:
            _drop_relation(name, touches, cascade=cascade)
        elif kind == "OBJECT_INDEX":
            _drop_index(name, node, touches)
        elif kind in ("OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"):
            _drop_from_table(name, kind, touches)
        elif kind == "OBJECT_STATISTIC_EXT":
            _drop_statistics(name, touches)
        elif kind in ("OBJECT_TYPE", "OBJECT_DOMAIN"):
            _drop_type(name, kind, touches, cascade=cascade)
        elif kind == "OBJECT_SCHEMA":
            _drop_schema(name, touches, cascade=cascade)
        else:
            _drop_other(name, kind, touches, cascade=cascade)


_TABLES = ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE")


def _drop_relation(name: Name, touches: Touches, *, cascade: bool) -> None:
    world = touches.world
    relation = world.relation(world.find(name.schema, name.name))
    if relation is None:
        return
    touches.drop(relation, cascade=cascade)
    if not relation.new:
        touches.breaks[f"{relation.kind} {relation.name} is dropped"] = None
        if relation.kind in ("table", "partitioned table"):
            touches.drops[f"table {relation.name}"] = None


def _drop_index(name: Name, node: Node, touches: Touches) -> None:
    world = touches.world
    index = world.indexes.get(world.find(name.schema, name.name))
    if index is None:
        if not world.complete:
            touches.lock(_index(name, touches), _STRONG)
            touches.unknown.append("which table the index belongs to")
        return None
    if not node.get("concurrent"):
        return touches.drop_index(index)
    touches.lock_key(index.table, _WEAK)
    # When nobody uses it any more.
    touches.lock(index, _STRONG)
    return None


def _drop_from_table(name: Name, kind: str, touches: Touches) -> None:
    relation = touches.world.relation(touches.world.find(name.schema, name.owner))
    if relation is None:
        return
    down = touches.world.tree(relation.key) if _is_cloned(kind, relation) else [relation]
    for each in down:
        touches.lock(each, _STRONG)


def _drop_statistics(name: Name, touches: Touches) -> None:
    world = touches.world
    keys = [f"{schema}.{name.name}" for schema in (name.schema, *world.search_path) if schema]
    table = next((world.statistics[key] for key in keys if key in world.statistics), None)
    if table is None and not world.complete:
        touches.unknown.append("which table the statistics belong to")
    touches.lock_key(table, _WEAK)


def _drop_type(name: Name, kind: str, touches: Touches, *, cascade: bool) -> None:
    world = touches.world
    touches.breaks[f"{kind.removeprefix('OBJECT_').lower()} {name.name} is dropped"] = None
    if not cascade:
        return
    key = f"{name.schema}.{name.name}" if name.schema else world.own_type(name.name)
    if not world.complete:
        touches.unknown.append(f"which tables have columns of {key}")
    for relation in list(world.relations.values()):
        if relation.of == key:
            touches.drop(relation)
        for column in relation.columns.values():
            if column.type is None or column.type.name != key or relation.kind == "view":
                continue
            touches.lock(relation, _STRONG)
            touches.drops[f"column {relation.name}.{column.name}"] = None
            for index in relation.indexes.values():
                if column.name in index.mentions:
                    touches.drop_index(index)
            touches.lock_views(world.views_on(relation.key, column.name))


def _drop_schema(name: Name, touches: Touches, *, cascade: bool) -> None:
    touches.breaks[f"schema {name.name} is dropped"] = None
    if not cascade:
        return
    if not touches.world.complete:
        touches.unknown.append(f"what is in schema {name.name}")
    for relation in list(touches.world.relations.values()):
        if relation.key.split(".", 1)[0] == name.name and relation.kind in _ROWS:
            touches.drop(relation, cascade=True)
            touches.drops[f"table {relation.name}"] = None


_ROWS = ("table", "partitioned table", "view", "materialized view")


def _drop_other(name: Name, kind: str, touches: Touches, *, cascade: bool) -> None:
    if kind in ("OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_SEQUENCE"):
        what = kind.removeprefix("OBJECT_").lower()
        touches.breaks[f"{what} {name.name} is dropped"] = None
    if not cascade:
        return
    run_by = [
        relation
        for relation in touches.world.relations.values()
        if any(each.rsplit(".", 1)[-1] == name.name for each in relation.triggers.values())
    ]
    for relation in run_by:
        touches.lock(relation, _STRONG)
    # Nothing but triggers can depend on a trigger's function.
    if not (touches.world.complete and run_by):
        touches.unknown.append(f"what depends on {name.name}")


# ---------------------------------------------------------------- maintenance


def _truncate(node: Node, touches: Touches) -> None:
    world = touches.world
    named = [each["RangeVar"] for each in node["relations"]]
    only = {world.key(each) for each in named if not each.get("inh")}
    todo = [world.relation(world.key(each)) for each in named]
    seen: set[str] = set()
    while todo:
        top = todo.pop()
        if top is None:
            continue
        for relation in [top] if top.key in only else world.tree(top.key):
            if relation.key in seen:
                continue
            seen.add(relation.key)
            _empty(relation, touches)
            if node.get("behavior") == "DROP_CASCADE":
                todo += [world.relation(each.table) for each in world.referencing(relation.key)]


def _empty(relation: Relation, touches: Touches) -> None:
    """A new file, and the indexes built anew over nothing, which counts as a scan."""
    touches.drops[f"rows of {relation.name}"] = None
    rows = holds_rows(relation)
    scans = bool(relation.indexes) if relation.known else None
    touches.lock(relation, _STRONG, rewrites=rows, scans=scans if rows else False)
    if rows:
        touches.lock_indexes(relation, _STRONG, rewrites=True)


def _lock(node: Node, touches: Touches) -> None:
    mode = LockMode(node["mode"])
    for each in node["relations"]:
        for relation in _named(each["RangeVar"], touches.world):
            touches.lock(relation, mode)
            for below in _read_by(relation, touches.world):
                touches.lock(below, mode)


def _named(range_var: Node, world: World) -> list[Relation]:
    """A relation with all below it, or without where ONLY says so."""
    found = list(world.tree(world.key(range_var)))
    return found if range_var.get("inh") else found[:1]


def _read_by(view: Relation, world: World) -> Iterator[Relation]:
    for key in view.reads if view.kind == "view" else ():
        below = world.relation(key)
        if below is not None:
            yield below
            yield from _read_by(below, world)


def _cluster(node: Node, touches: Touches) -> None:
    if "relation" not in node:
        touches.unknown.append("which tables were clustered before")
        return
    top = touches.world.relation(touches.world.key(node["relation"]))
    # Each partition in a transaction of its own.
    touches.alone = top is not None and top.is_partitioned
    for each in touches.world.parts(top.key) if top is not None else ():
        touches.rewrite(each)


def _vacuum(node: Node, touches: Touches) -> None:
    if "rels" not in node:
        touches.unknown.append("which tables are vacuumed")
    vacuums = node.get("is_vacuumcmd")
    full = any(
        each["DefElem"]["defname"] == "full" and has_option(node, "full", key="options")
        for each in node.get("options", [])
    )
    for each in node.get("rels", []):
        top = touches.world.key(each["VacuumRelation"]["relation"])
        for relation in _vacuumed(each["VacuumRelation"]["relation"], node, touches.world):
            if full:
                touches.rewrite(relation)
            elif vacuums:
                touches.lock(relation, _WEAK)
                if holds_rows(relation):
                    touches.lock_indexes(relation, LockMode.ROW_EXCLUSIVE)
            elif _is_sampled(relation, top, touches.world):
                touches.lock(relation, _READ)
            else:
                touches.lock(relation, _WEAK)
                if holds_rows(relation):
                    touches.lock_indexes(relation, _READ)


def _vacuumed(range_var: Node, node: Node, world: World) -> list[Relation]:
    """The table with its partitions; what inherits is vacuumed since 18, and analysed."""
    key = world.key(range_var)
    if not range_var.get("inh"):
        return list(world.tree(key))[:1]
    whole = world.major >= 18 or not node.get("is_vacuumcmd")
    return list(world.tree(key) if whole else world.parts(key))


def _is_sampled(relation: Relation, top: str, world: World) -> bool:
    """Of what inherits, a sample is read for its parent; since 18 it is analysed as well."""
    return world.major < 18 and relation.partition_of is None and relation.key != top


def _reindex(node: Node, touches: Touches) -> None:
    world = touches.world
    concurrent = has_option(node, "concurrently")
    if "relation" not in node:
        _reindex_all(node, touches, concurrent=concurrent)
        return
    key = world.key(node["relation"])
    named = world.relations.get(world.indexes[key].table if key in world.indexes else key)
    # Each partition in a transaction of its own.
    touches.alone = named is not None and named.is_partitioned
    if node["kind"] != "REINDEX_OBJECT_INDEX":
        for relation in world.parts(key):
            _rebuild(relation, list(relation.indexes.values()), touches, concurrent=concurrent)
        return
    index = world.indexes.get(key)
    if index is None:
        if not world.complete:
            missing = Index(key=key, name=world.shown(key), table="")
            touches.lock(missing, _WEAK if concurrent else _STRONG, rewrites=True)
            touches.unknown.append("which table the index belongs to")
        return
    for each in world.index_tree(index):
        relation = world.relation(each.table)
        if relation is not None:
            _rebuild(relation, [each], touches, concurrent=concurrent)


def _reindex_all(node: Node, touches: Touches, *, concurrent: bool) -> None:
    if not touches.world.complete or node["kind"] == "REINDEX_OBJECT_SYSTEM":
        touches.unknown.append("which indexes there are")
    schema = node.get("name") if node["kind"] == "REINDEX_OBJECT_SCHEMA" else None
    for relation in touches.world.relations.values():
        if holds_rows(relation) and schema in (None, relation.key.split(".", 1)[0]):
            _rebuild(relation, list(relation.indexes.values()), touches, concurrent=concurrent)


def _rebuild(
    relation: Relation, indexes: list[Index], touches: Touches, *, concurrent: bool
) -> None:
    if indexes or not relation.known:
        touches.build(relation, _WEAK if concurrent else _SHARE)
    else:
        touches.lock(relation, _WEAK if concurrent else _SHARE)
    for index in indexes:
        rows = holds_rows(relation)
        touches.lock(index, _WEAK if concurrent else _STRONG, rewrites=rows)


def _refresh(node: Node, touches: Touches) -> None:
    view = touches.world.relation(touches.world.key(node["relation"]))
    if view is None:
        return
    if not node.get("skipData"):
        _read_definition(view, touches)
    if node.get("concurrent"):
        touches.lock(view, LockMode.EXCLUSIVE, scans=True)
        touches.lock_indexes(view, LockMode.ROW_EXCLUSIVE)
        return
    scans = bool(view.indexes) if view.known else None
    touches.lock(view, _STRONG, rewrites=True, scans=scans)
    touches.lock_indexes(view, _STRONG, rewrites=True)


def _read_definition(view: Relation, touches: Touches) -> None:
    query = queries.query_of(view)
    if query is None:
        touches.unknown.append("what the view reads")
    else:
        queries.read({"SelectStmt": query}, touches)


def _copy(node: Node, touches: Touches) -> None:
    if "query" in node:
        queries.read(node["query"], touches)
    elif "relation" in node:
        relation = touches.world.relation(touches.world.key(node["relation"]))
        if relation is not None and node.get("is_from"):
            touches.lock(relation, LockMode.ROW_EXCLUSIVE)
        elif relation is not None:
            touches.lock(relation, _READ, scans=holds_rows(relation))


def _query_inside(node: Node, touches: Touches) -> None:
    """A cursor, which reads as far as it is fetched, or a prepared statement."""
    inner = Touches(touches.world)
    queries.read(node["query"], inner, planned="portalname" in node)
    touches.merge(inner, scans=None)


def _explain(node: Node, touches: Touches) -> None:
    kind, inner = next(iter(node["query"].items()))
    if has_option(node, "analyze", key="options"):
        return touch(kind, inner, touches)
    planned = Touches(touches.world)
    touch(kind, inner, planned)
    touches.merge(planned, scans=False)
    return None


def _says_unknown(what: str) -> Callable[[Node, Touches], None]:
    def say(_: Node, touches: Touches) -> None:
        touches.unknown.append(what)

    return say


_HANDLERS: dict[str, Callable[[Node, Touches], None]] = {
    "AlterDomainStmt": _alter_domain,
    "AlterEnumStmt": _rename_value,
    "AlterObjectSchemaStmt": _set_schema,
    "AlterPolicyStmt": _create_policy,
    "AlterPublicationStmt": _publication,
    "AlterSeqStmt": _sequence,
    "AlterTableStmt": _alter_table,
    "CallStmt": _says_unknown("what the procedure does"),
    "ClusterStmt": _cluster,
    "CommentStmt": _comment,
    "CopyStmt": _copy,
    "CreateForeignTableStmt": _create_foreign_table,
    "CreateFunctionStmt": _create_function,
    "DeclareCursorStmt": _query_inside,
    "PrepareStmt": _query_inside,
    "CreateExtensionStmt": _says_unknown("what the extension makes"),
    "CreatePolicyStmt": _create_policy,
    "CreatePublicationStmt": _publication,
    "CreateSchemaStmt": _create_schema,
    "CreateSeqStmt": _sequence,
    "CreateStatsStmt": _create_statistics,
    "CreateStmt": _create_table,
    "CreateTableAsStmt": _create_as,
    "CreateTrigStmt": _create_trigger,
    "DoStmt": _says_unknown("what the block does"),
    "DropStmt": _drop,
    "ExecuteStmt": _says_unknown("what the prepared statement does"),
    "ExplainStmt": _explain,
    "GrantStmt": _grant,
    "IndexStmt": _create_index,
    "LockStmt": _lock,
    "RefreshMatViewStmt": _refresh,
    "ReindexStmt": _reindex,
    "RenameStmt": _rename,
    "RuleStmt": _create_rule,
    "SecLabelStmt": _comment,
    "TruncateStmt": _truncate,
    "VacuumStmt": _vacuum,
    "ViewStmt": _create_view,
}

# They touch no relation that anybody waits for.
_NOTHING = {
    "AlterCollationStmt", "AlterDatabaseRefreshCollStmt", "AlterDatabaseSetStmt",
    "AlterDatabaseStmt", "AlterDefaultPrivilegesStmt", "AlterEventTrigStmt",
    "AlterExtensionContentsStmt", "AlterFdwStmt", "AlterForeignServerStmt",
    "AlterFunctionStmt", "AlterOpFamilyStmt", "AlterOperatorStmt", "AlterOwnerStmt",
    "AlterRoleSetStmt", "AlterRoleStmt", "AlterStatsStmt", "AlterSystemStmt",
    "AlterTSConfigurationStmt", "AlterTSDictionaryStmt", "AlterTypeStmt",
    "AlterUserMappingStmt", "CheckPointStmt", "ClosePortalStmt", "CompositeTypeStmt",
    "ConstraintsSetStmt", "CreateAmStmt", "CreateCastStmt", "CreateConversionStmt",
    "CreateDomainStmt", "CreateEnumStmt", "CreateEventTrigStmt", "CreateFdwStmt",
    "CreateForeignServerStmt", "CreateOpClassStmt",
    "CreateOpFamilyStmt", "CreatePLangStmt", "CreateRangeStmt", "CreateRoleStmt",
    "CreateSubscriptionStmt", "CreateTableSpaceStmt", "CreateTransformStmt",
    "CreateUserMappingStmt", "CreatedbStmt", "DeallocateStmt", "DefineStmt", "DiscardStmt",
    "DropRoleStmt", "DropSubscriptionStmt", "DropTableSpaceStmt", "DropUserMappingStmt",
    "DropdbStmt", "GrantRoleStmt", "ImportForeignSchemaStmt", "ListenStmt", "LoadStmt",
    "NotifyStmt", "ReassignOwnedStmt", "TransactionStmt", "UnlistenStmt", "VariableSetStmt",
    "VariableShowStmt",
}  # fmt: skip
