"""Text as PostgreSQL's grammar reads it: statements, their lines, and where a mistake is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock import syntax


def test_each_statement_comes_with_its_text_its_kind_and_its_line():
    found = syntax.parse("-- a comment\nSELECT 1;\n\n/* b */ CREATE TABLE a (\n  id int\n);\n")
    assert [(each.text, each.kind, each.line) for each in found] == [
        ("SELECT 1", "SelectStmt", 2),
        ("CREATE TABLE a (\n  id int\n)", "CreateStmt", 4),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN PERFORM 1; PERFORM 2; END $$",
        "DO $a$ BEGIN RAISE NOTICE '$$;$$'; END $a$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "INSERT INTO t VALUES (';', E'\\';')",
        'CREATE TABLE "a;b" (id int)',
        "SELECT 1 /* ; */",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)",
    ],
)
def test_a_semicolon_inside_a_statement_does_not_end_it(sql):
    assert [each.text for each in syntax.parse(f"{sql};\nSELECT 2;")] == [sql, "SELECT 2"]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT 1;\nSELEKT 2;\n", 2),
        ("-- ü 漢字 𝄞\nSELECT 'é', '𝄞';\nSELECT é FROM FROM;", 3),
        ("SELECT 1;\n\nSELECT 'never ends", 3),
        ("SELECT 1;\n/* never ends", 2),
        ("SELECT 1;\nDO $$ never ends", 2),
        ("SELECT 1;\nSELECT (1", 2),
        ("SELECT 1;\n\\i other.sql\n", 2),
        ("SELECT 1;\nSELECT '\0';", 2),
    ],
)
def test_a_mistake_is_found_on_its_line(sql, line):
    with pytest.raises(syntax.SqlError) as caught:
        syntax.parse(sql)
    assert caught.value.line == line
    assert caught.value.message
    with pytest.raises(syntax.SqlError) as caught:
        syntax.parse(sql, first_line=11)
    assert caught.value.line == line + 10


def test_what_is_nested_too_deeply_to_be_read_is_a_mistake_and_no_crash():
    for sql in ("SELECT 1" + " + 1" * 20_000, "SELECT " + "(" * 50_000):
        with pytest.raises(syntax.SqlError):
            syntax.parse(sql)


def test_a_summary_is_one_line_of_at_most_a_hundred_characters():
    short, long = syntax.parse(f"SELECT\n  1,\t2; SELECT {', '.join('1234567890' * 20)}")
    assert short.summary == "SELECT 1, 2"
    assert len(long.summary) == 100
    assert long.summary.endswith("…")


def test_walk_names_every_node_below():
    (statement,) = syntax.parse("SELECT a FROM b WHERE c IN (SELECT d FROM e)")
    tables = [node["relname"] for name, node in syntax.walk(statement.node) if name == "RangeVar"]
    assert tables == ["b", "e"]


@given(st.text(max_size=60) | st.text(alphabet="SELECT1;'\"$-/*\n( ),éB\\", max_size=60))
def test_any_text_is_read_or_refused(text):
    lines: list[int] = []
    found: tuple[syntax.Statement, ...] = ()
    try:
        found = syntax.parse(text)
    except syntax.SqlError as error:
        lines = [error.line]
    lines += [each.line for each in found]
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)
    assert all(each.text in text for each in found)
