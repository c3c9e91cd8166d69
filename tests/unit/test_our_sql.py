"""Airlock's own SQL names everything with its schema, whatever the session's search_path."""

from __future__ import annotations

import pytest

from tests import our_sql
from tests.our_sql import Sql


def test_the_reading_of_our_sql_finds_what_is_in_it():
    files = {each.file for each in our_sql.ours()}
    assert {
        "guard.sql",
        "ledger_1.sql",
        "ledger.py",
        "masked_copy.py",
        "snapshot/facts.py",
    } <= files
    assert {"nextval", "to_regclass", "hashtextextended"} <= our_sql.functions()
    assert {"text", "oid", "jsonb"} <= our_sql.types()
    assert {"=", "||", "->>"} <= our_sql.operators()
    assert {"pg_class", "migration", "deploy"} <= our_sql.relations()


@pytest.mark.parametrize("sql", our_sql.ours(), ids=lambda sql: sql.file)
def test_functions_and_types_are_qualified(sql: Sql):
    names = [*sql.named("FuncCall", "funcname"), *sql.types()]
    # What an f-string puts in says itself where it is.
    assert [name for name in names if len(name) == 1 and name != ("x",)] == []


@pytest.mark.parametrize("sql", our_sql.ours(), ids=lambda sql: sql.file)
def test_relations_are_qualified(sql: Sql):
    made = {node["ctename"] for node in sql.nodes("CommonTableExpr")}
    bare = {n["relname"] for n in sql.nodes("RangeVar") if "schemaname" not in n} - made
    assert {name for name in bare if not name.startswith("x")} == set()
