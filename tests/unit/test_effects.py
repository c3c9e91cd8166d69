"""What is predicted of a statement, against what real servers did with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock import syntax
from airlock.effects import (
    Effect,
    LockMode,
    StatementEffects,
    World,
    predict,
    predict_one,
    render,
)
from tests.effects.forms import disagreements, forms, read_table, rows, world

TABLE = read_table()
VERSIONS = sorted({version for each in TABLE.values() for version in each})


def test_the_table_has_every_form_of_the_versions_that_it_was_made_on():
    assert VERSIONS, "docs/effects.md is not there. Run: make effects"
    for version in VERSIONS:
        missing = [form.text for form in forms(version) if version not in TABLE.get(form.text, {})]
        assert not missing, f"Run: make effects, for PostgreSQL {version} and {missing}"


@pytest.mark.parametrize("major", VERSIONS)
def test_predictions_from_the_text_alone_are_what_the_servers_did(major):
    wrong = [
        f"{form.text}: {each}"
        for form in forms(major)
        for each in disagreements(
            predict_one(form.statement, world(form, major)), TABLE[form.text][major]
        )
    ]
    assert not wrong, "\n".join(wrong)


def predicted(sql: str, major: int = 16):
    return predict(syntax.parse(sql), World(major=major))


# (text, its last statement's effects as relation, lock, rewrites, scans), without any database
OFFLINE = [
    ("DO $$ BEGIN NULL; END $$", [(None, None, None, None)]),
    ("CALL work()", [(None, None, None, None)]),
    (
        "ALTER TABLE deals ALTER COLUMN a TYPE bigint",
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, None, None)],
    ),
    (
        "ALTER TABLE deals ADD COLUMN a int DEFAULT mine()",
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, None, None)],
    ),
    (
        "CREATE TABLE t (a int); ALTER TABLE t ALTER COLUMN a TYPE bigint",
        [],
    ),
    (
        "ALTER TABLE deals ADD COLUMN a int; ALTER TABLE deals ALTER COLUMN a TYPE bigint",
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, True, True)],
    ),
    (
        (
            "CREATE FUNCTION mine() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';"
            "ALTER TABLE deals ADD COLUMN a int DEFAULT mine()"
        ),
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, False, False)],
    ),
    (
        "SET search_path TO shop, public; DROP TABLE deals",
        [("shop.deals", LockMode.ACCESS_EXCLUSIVE, False, False)],
    ),
    (
        'DROP TABLE "Deals"',
        [('public."Deals"', LockMode.ACCESS_EXCLUSIVE, False, False)],
    ),
    (
        (
            "ALTER TABLE deals ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;"
            "ALTER TABLE deals VALIDATE CONSTRAINT c; ALTER TABLE deals ALTER COLUMN a SET NOT NULL"
        ),
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, False, False)],
    ),
    ("REINDEX SCHEMA public", [(None, None, None, None)]),
    ("CREATE TEMP TABLE deals (a int); DELETE FROM deals", []),
    (
        "CREATE TEMP TABLE deals (a int); DELETE FROM public.deals",
        [("public.deals", LockMode.ROW_EXCLUSIVE, False, True)],
    ),
    (
        ("CREATE DOMAIN a AS int NOT NULL; CREATE DOMAIN b AS a;ALTER TABLE deals ADD COLUMN x b"),
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, True, True)],
    ),
    (
        "CREATE DOMAIN a AS int NOT NULL; ALTER TABLE deals ADD COLUMN x a[]",
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, False, False)],
    ),
    ("SELECT 1 AS a INTO made; CREATE INDEX ON made (a)", []),
    (
        "ALTER TABLE deals ADD y bit(3); ALTER TABLE deals ALTER y TYPE varbit(5)",
        [("public.deals", LockMode.ACCESS_EXCLUSIVE, True, True)],
    ),
    (
        "CREATE OR REPLACE VIEW v AS TABLE a; CREATE OR REPLACE VIEW v AS TABLE b; TABLE v",
        [("public.b", LockMode.ACCESS_SHARE, False, True)],
    ),
    ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE; SELECT 1", []),
]


@pytest.mark.parametrize(("sql", "effects"), OFFLINE)
def test_what_no_database_has_told_is_unknown_unless_the_text_says_it(sql, effects):
    assert rows(predicted(sql)[-1].effects) == effects


CIRCLES = [
    "CREATE TABLE a (x int) INHERITS (a); ALTER TABLE a INHERIT a; DROP TABLE a",
    "ALTER TABLE a ATTACH PARTITION b DEFAULT; ALTER TABLE b ATTACH PARTITION a DEFAULT",
    "CREATE VIEW a AS TABLE b; CREATE VIEW b AS TABLE a; TABLE a; DROP VIEW b CASCADE",
]


@pytest.mark.parametrize("sql", CIRCLES)
def test_a_circle_that_postgresql_would_refuse_is_predicted_to_its_end(sql):
    assert len(predicted(sql)) == sql.count(";") + 1


def test_what_is_done_partition_by_partition_runs_in_no_transaction():
    made = "CREATE TABLE a (x int PRIMARY KEY) PARTITION BY RANGE (x); "
    for sql in ("REINDEX TABLE a", "REINDEX INDEX a_pkey", "CLUSTER a USING a_pkey"):
        assert not predicted(made + sql)[-1].transactional
    assert predicted("REINDEX TABLE a")[-1].transactional


def test_without_a_database_a_relation_that_nobody_made_is_an_existing_one():
    first, second = predicted("CREATE TABLE made (a int); CREATE INDEX ON made (a)")
    assert (first.effects, second.effects, second.new) == ((), (), ("public.made",))
    (third,) = predicted("CREATE INDEX ON there (a)")
    assert third.blocks_writes
    assert third.builds == ("public.there",)


@pytest.mark.parametrize(
    ("sql", "drops", "breaks"),
    [
        ("DROP TABLE a", ("table public.a",), ("table public.a is dropped",)),
        ("TRUNCATE a", ("rows of public.a",), ()),
        ("ALTER TABLE a DROP COLUMN b", ("column public.a.b",), ("column public.a.b is dropped",)),
        ("ALTER TABLE a RENAME b TO c", (), ("column public.a.b is renamed to c",)),
        ("ALTER TABLE a RENAME TO b", (), ("table public.a is renamed to b",)),
        ("ALTER TABLE a ALTER b TYPE int8", (), ("column public.a.b becomes int8",)),
        ("ALTER TYPE t RENAME VALUE 'a' TO 'b'", (), ("enum value a is renamed to b",)),
        ("DROP FUNCTION f(int)", (), ("function f is dropped",)),
        ("ALTER TABLE a ADD COLUMN b int", (), ()),
    ],
)
def test_what_is_lost_and_what_breaks_running_code_is_said(sql, drops, breaks):
    (found,) = predicted(sql)
    assert (found.drops, found.breaks) == (drops, breaks)


def test_predictions_as_data_have_null_where_nobody_can_know():
    (found,) = render.as_data(predicted("\n\nDO $$ BEGIN NULL; END $$"))
    nothing = {"relation": None, "lock": None, "rewrites": None, "scans": None}
    assert found == {"line": 3, "statement": "DO $$ BEGIN NULL; END $$", "effects": [nothing]}


def test_a_surprise_is_what_was_measured_and_not_predicted():
    def effect(lock: LockMode, *, scans: bool) -> Effect:
        return Effect(relation="public.a", lock=lock, held_s=None, rewrites=False, scans=scans)

    share, strong = LockMode.SHARE, LockMode.ACCESS_EXCLUSIVE
    for measured, foreseen, surprising in (
        (effect(share, scans=True), effect(share, scans=True), False),
        (effect(share, scans=True), effect(strong, scans=True), False),
        (effect(strong, scans=False), effect(share, scans=False), True),
        (effect(share, scans=True), effect(share, scans=False), True),
    ):
        statement = StatementEffects(
            line=1,
            statement="",
            seconds=0,
            wal_bytes=0,
            rows=None,
            effects=(measured,),
            predicted=(foreseen,),
        )
        assert bool(statement.surprises) is surprising


@settings(max_examples=150)
@given(st.lists(st.sampled_from([form.text for form in forms()]), min_size=1, max_size=6))
def test_whatever_statements_follow_each_other_they_are_predicted(texts):
    for major in (13, 16, 18):
        for each in predict(syntax.parse(";".join(texts)), World(major=major)):
            assert each.unknown or all(effect.relation for effect in each.effects)
