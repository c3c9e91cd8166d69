"""Files as lint reads them: transactions, what is no SQL, and exceptions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock import lint, syntax
from airlock.effects import World
from airlock.lint import Policy
from tests.unit.lint.cases import CASES, linted

C = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1; SELECT 2;", [0, 0]),
        (f"SELECT 1; {C} SELECT 2;", [0, None, 2]),
        ("BEGIN; SELECT 1; COMMIT; SELECT 2;", [0, 0, None, None]),
        ("SELECT 1; START TRANSACTION; SELECT 2; ROLLBACK;", [None, 1, 1, None]),
        ("BEGIN; SAVEPOINT s; SELECT 1; ROLLBACK TO s; SELECT 2; END;", [0, 0, 0, 0, 0, None]),
    ],
)
def test_a_statement_is_in_the_transaction_that_it_would_run_in(sql, expected):
    assert [place.transaction for place in lint.read("a.sql", sql).places] == expected


@pytest.mark.parametrize(
    ("sql", "mistakes", "statements"),
    [
        ("SELECT 1;\nSELEKT 2;\nSELECT 3;\n", [2], [1, 3]),
        ("SELECT 1;\n\\i other.sql\nSELECT 3;\n", [2], [1, 3]),
        ("SELECT 1;\nCOPY a FROM stdin;\n1\tx\n\\.\nSELECT 5;", [2], [1, 5]),
        ("SELECT 1;\nSELECT 'never ends;\nSELECT 3;", [2], [1, 3]),
        ("SELECT (1;\nSELECT 2;", [1], [2]),
        ("SELEKT 1;\nCREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; SELECT 1);", [1], [2]),
        (
            "SELEKT 1;\nCREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
            [1],
            [2],
        ),
        ("SELEKT 1;\nDO $$ BEGIN PERFORM 1; PERFORM 2; END $$;", [1], [2]),
    ],
)
def test_what_cannot_be_read_is_a_mistake_and_the_rest_is_read(sql, mistakes, statements):
    script = lint.read("a.sql", sql)
    assert [each.line for each in script.mistakes] == mistakes
    assert [each.line for each in script.statements] == statements
    found = [each for each in linted(sql).findings if each.rule == "syntax"]
    assert [each.line for each in found] == mistakes


BAD = "CREATE INDEX i ON deals (a);"
ALLOW = "-- airlock: allow index-not-concurrent because the table has 40 rows"


@pytest.mark.parametrize(
    "sql",
    [
        f"{ALLOW}\n{BAD}",
        f"{ALLOW}\n\n-- Something else\n{BAD}",
        f"SELECT 1;\n{ALLOW}\n{BAD}",
        f"  {ALLOW.upper().replace('INDEX-NOT-CONCURRENT', 'index-not-concurrent')}\n{BAD}",
    ],
)
def test_a_reason_above_the_statement_lets_it_pass(sql):
    found = linted(sql)
    assert found.findings == ()
    assert [each.allowed.lower() for each in found.allowed] == ["the table has 40 rows"]


@pytest.mark.parametrize(
    ("sql", "rules"),
    [
        (f"{BAD}\n{ALLOW}", ["allow-unused", "index-not-concurrent"]),
        (f"{ALLOW}\nSELECT 1;\n{BAD}", ["allow-unused", "index-not-concurrent"]),
        (
            f"{ALLOW.partition(' because')[0]}\n{BAD}",
            ["allow-without-reason", "index-not-concurrent"],
        ),
        (f"-- airlock: allow\n{BAD}", ["allow-without-reason", "index-not-concurrent"]),
        (f"DO $$\n{ALLOW}\n$$;\n{BAD}", ["index-not-concurrent", "unknown-effect"]),
        (f"{ALLOW}\nTRUNCATE deals;", ["allow-unused", "truncate"]),
    ],
)
def test_an_exception_elsewhere_or_without_a_reason_lets_nothing_pass(sql, rules):
    found = linted(sql)
    assert sorted(each.rule for each in found.findings) == rules
    assert found.allowed == ()


# ---------------------------------------------------------------- any text


WORDS = sorted({word for case in CASES for word in case.sql.split()})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_no_words_in_whatever_order_break_it(sql: str):
    linted(sql)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.data())
def test_no_statement_with_other_words_in_it_breaks_it(case, data):
    words = case.sql.split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words) - 1))
        words[place] = data.draw(st.sampled_from([*WORDS, ""]))
    linted(" ".join(words))


EFFECTS = Path(__file__).parents[2] / "effects"
MARKS = re.compile(r"^(-- (from|until) .*|## .*|-- .*)\n", re.MULTILINE)


def test_every_form_whose_effects_are_known_is_judged_and_answered_in_sql():
    there = lint.read("000.sql", (EFFECTS / "world.sql").read_text("utf-8"), history=True)
    assert there.mistakes == ()
    forms = MARKS.sub("", (EFFECTS / "forms.sql").read_text("utf-8")).split("\n\n")
    assert len(forms) > 300
    for sql in filter(str.strip, forms):
        form = lint.read("001.sql", sql)
        for scripts in ([form], [there, form]):
            found = lint.lint(scripts, World(major=17), Policy())
            assert "syntax" not in {each.rule for each in found.findings}, sql
            for each in found.findings:
                syntax.parse(each.remedy)
