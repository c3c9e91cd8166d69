"""What an expression is made of, as far as its effect goes."""

from __future__ import annotations

from collections.abc import Iterator

from airlock.effects.world import World
from airlock.syntax import Node, walk

# PostgreSQL's own, where no database says so. Values from a catalogue of version 18.
_VOLATILE = {
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "nextval",
    "pg_sleep",
    "random",
    "random_normal",
    "setval",
    "timeofday",
    "uuidv4",
    "uuidv7",
}
# Of extensions that come with PostgreSQL.
_VOLATILE_ELSEWHERE = {"gen_random_bytes", "uuid_generate_v1", "uuid_generate_v4", "gen_salt"}
# Where no database says so: those that defaults and generated columns are made of.
_STEADY = {
    "abs", "age", "array_append", "array_length", "btrim", "ceil", "char_length", "coalesce",
    "concat", "current_database", "current_schema", "current_setting", "date_part",
    "date_trunc", "daterange", "decode", "encode", "extract", "floor", "greatest",
    "int4range", "json_build_array", "json_build_object", "jsonb_build_array",
    "jsonb_build_object", "least", "left", "length", "lower", "ltrim", "make_date",
    "make_interval", "make_timestamptz", "md5", "mod", "now", "numrange", "octet_length",
    "position", "replace", "right", "round", "rtrim", "sha256", "split_part",
    "statement_timestamp", "substr", "substring", "timezone", "to_char", "to_date", "to_json",
    "to_jsonb", "to_number", "to_timestamp", "to_tsvector", "transaction_timestamp", "trim",
    "trunc", "tsrange", "tstzrange", "upper", "version",
}  # fmt: skip


def function_name(call: Node) -> tuple[str, str]:
    """Schema, or "", and name of a FuncCall."""
    names = [part["String"]["sval"] for part in call.get("funcname", [])]
    return (names[-2] if len(names) > 1 else ""), names[-1]


def is_volatile(expression: object, world: World) -> bool | None:
    """Whether each evaluation may give another value; None: a function that nobody knows."""
    unknown = False
    for name, node in walk(expression):
        if name != "FuncCall":
            continue
        found = _volatility(function_name(node), world)
        if found == "v":
            return True
        unknown = unknown or found is None
    return None if unknown else False


def _volatility(function: tuple[str, str], world: World) -> str | None:
    schema, name = function
    if schema != "pg_catalog" and name in world.functions:
        found = world.functions[name]
        return None if found == "u" else found
    if name in _VOLATILE or (name in _VOLATILE_ELSEWHERE and not world.complete):
        return "v"
    # A complete world has told of all that is not PostgreSQL's own or is volatile.
    return "s" if world.complete or schema == "pg_catalog" or name in _STEADY else None


def own_functions(tree: object, world: World) -> Iterator[str]:
    """The functions that are not PostgreSQL's own: what they do is not in the text."""
    for name, node in walk(tree):
        if name == "FuncCall":
            schema, function = function_name(node)
            if function in world.own_functions and schema != "pg_catalog":
                yield function


def columns_of(tree: object) -> Iterator[tuple[str, str]]:
    """(relation or "", column) of each ColumnRef."""
    for name, node in walk(tree):
        if name == "ColumnRef":
            fields = [part["String"]["sval"] for part in node["fields"] if "String" in part]
            if fields:
                yield (fields[-2] if len(fields) > 1 else ""), fields[-1]


def as_not_null(tree: Node) -> tuple[str, ...]:
    """The columns of which an expression says ``column IS NOT NULL``, alone or with AND."""
    both = tree.get("BoolExpr", {})
    if both.get("boolop") == "AND_EXPR":
        return tuple(column for each in both["args"] for column in as_not_null(each))
    test = tree.get("NullTest", {})
    if test.get("nulltesttype") != "IS_NOT_NULL" or "ColumnRef" not in test.get("arg", {}):
        return ()
    return tuple(column for _, column in columns_of(test["arg"]))[:1]
