"""The world that predictions need, read from a database."""

from __future__ import annotations

import json
from typing import Any

from airlock import postgres, syntax
from airlock.effects.datatype import Domain, from_catalogue
from airlock.effects.expressions import as_not_null
from airlock.effects.world import Column, Constraint, Index, Kind, Relation, World
from airlock.postgres import Conn

_KINDS: dict[str, Kind] = {
    "r": "table",
    "p": "partitioned table",
    "f": "foreign table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
    "c": "composite type",
}


async def read_world(conn: Conn) -> World:
    """Everything that ``airlock.effects.predict`` asks of a database. Sizes are estimates."""
    found = json.loads(await conn.fetchval(postgres.query("world")))
    path = await postgres.default_path(conn)
    world = World(
        major=conn.get_server_version().major,
        complete=True,
        search_path=path or ("public",),
        time_zone=found["time_zone"],
    )
    _read_relations(found, world)
    _read_types(found, world)
    _read_indexes(found, world)
    _read_constraints(found, world)
    _read_dependencies(found, world)
    return world


def _read_relations(found: dict[str, Any], world: World) -> None:
    for row in found["relations"] or ():
        world.relations[row["key"]] = Relation(
            key=row["key"],
            name=row["name"],
            kind=_KINDS[row["kind"]],
            unlogged=row["unlogged"],
            rows=row["rows"],
            size_bytes=row["bytes"],
            of=row["of_type"],
            rules=set(row["rules"] or ()),
            partition_key=tuple(row["partition_key"] or ()),
            definition=row["definition"],
        )
    for key, name, kind, text, not_null, virtual in found["columns"] or ():
        world.relations[key].columns[name] = Column(
            name=name,
            type=from_catalogue(kind, text),
            not_null=not_null,
            virtual=virtual,
        )
    for child, parent, default in found["parents"] or ():
        if child in world.relations:
            world.put_below(world.relations[child], parent)
            if default is not None:
                world.relations[child].partition_of = parent
                world.relations[child].default_partition = default


def _read_types(found: dict[str, Any], world: World) -> None:
    for row in found["types"] or ():
        if row["kind"] == "d":
            base = from_catalogue(row["base"], row["base_text"])
            world.domains[row["key"]] = Domain(base=base, constrained=row["constrained"])
        else:
            world.types.add(row["key"])
    for each in found["functions"] or ():
        schema, name, volatility = each.split("\1")
        world.functions[name] = max(volatility, world.functions.get(name, volatility))
        if schema != "pg_catalog":
            world.own_functions.add(name)


def _read_indexes(found: dict[str, Any], world: World) -> None:
    for row in found["indexes"] or ():
        index = Index(
            key=row["key"],
            name=row["name"],
            table=row["table"],
            columns=tuple(row["columns"] or ()),
            mentions=frozenset({*(row["columns"] or ()), *(row["mentions"] or ())} - {""}),
            unique=row["unique"],
            primary=row["primary"],
            valid=row["valid"],
            partial=row["partial"],
        )
        world.indexes[index.key] = world.relations[index.table].indexes[index.key] = index
    for child, parent, _ in found["parents"] or ():
        if child in world.indexes:
            world.indexes[child].parent = parent


def _read_constraints(found: dict[str, Any], world: World) -> None:
    for row in found["constraints"] or ():
        columns = tuple(str(each) for each in row["columns"] or ())
        kind = row["kind"]
        world.relations[row["table"]].constraints[row["name"]] = Constraint(
            name=row["name"],
            kind=kind,
            table=row["table"],
            columns=columns,
            valid=row["valid"],
            index=row["index"],
            references=row["references"],
            referenced=tuple(row["referenced"] or ()),
            on_delete=row["on_delete"],
            on_update=row["on_update"],
            not_null=columns[:1] if kind == "n" else _not_null(row["expression"]),
        )
        if kind == "n" and not row["valid"]:
            world.relations[row["table"]].columns[columns[0]].not_null = False


def _not_null(expression: str | None) -> tuple[str, ...]:
    if expression is None or "IS NOT NULL" not in expression:
        return ()
    statement = syntax.parse(f"SELECT {expression}")[0]
    return as_not_null(statement.node["targetList"][0]["ResTarget"]["val"])


def _read_dependencies(found: dict[str, Any], world: World) -> None:
    for each in found["reads"] or ():
        view, relation, *column = each.split("\1")
        world.relations[view].reads.setdefault(relation, set()).update(column)
    for table, name, function, _ in found["triggers"] or ():
        if table in world.relations:
            world.relations[table].triggers[name] = function
    for statistics, table in found["statistics"] or ():
        world.statistics[statistics] = table
