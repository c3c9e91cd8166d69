"""Which migrations may go into one deploy, by their phases and by what they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airlock import migration, phases, record
from airlock.errors import Refused
from airlock.migration import Migration, MigrationFile
from airlock.plan import Plan

EXPAND = "ALTER TABLE deals ADD COLUMN rating int"
CONTRACT = "ALTER TABLE deals DROP COLUMN score"
ELSEWHERE = "DROP TABLE watchers"


def made(version: int, phase: str, sql: str) -> Migration:
    text = f"-- Phase: {phase}\n{sql};\n-- ROLLBACK NOTES\n-- SELECT 1;\n"
    path = Path(f"{version:03d}_step.sql")
    return migration.parse(
        MigrationFile(version=version, name="step", path=path, text=text, checksum="c")
    )


def plan(*steps: tuple[str, str]) -> tuple[Migration, ...]:
    return tuple(made(number, *step) for number, step in enumerate(steps, 11))


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (("expand", EXPAND), ("expand", CONTRACT)),
        (("contract", CONTRACT),),
        (("contract", CONTRACT), ("contract", "DROP INDEX idx_deals_score; " + ELSEWHERE)),
        (("expand", EXPAND), ("contract", ELSEWHERE)),
        (("expand", "COMMENT ON TABLE deals IS 'x'; SELECT 1"), ("contract", CONTRACT)),
        (("expand", "CREATE TABLE a.deals (id int)"), ("contract", "DROP TABLE b.deals")),
        (
            ("expand", "WITH batch AS (SELECT 1) INSERT INTO a SELECT * FROM batch"),
            ("contract", "WITH batch AS (SELECT 2) DELETE FROM b USING batch"),
        ),
    ],
)
def test_expands_go_together_and_contracts_of_something_else_may_follow(steps):
    phases.check(plan(*steps))


@pytest.mark.parametrize(
    ("expand", "contract", "shared"),
    [
        (EXPAND, CONTRACT, "deals"),
        (EXPAND, "ALTER TABLE public.deals DROP COLUMN score", "public.deals"),
        ("CREATE TABLE new (); INSERT INTO new SELECT FROM old", "DROP TABLE old", "old"),
        ("CREATE INDEX i ON deals (a)", "DROP TRIGGER t ON deals", "deals"),
        ("CREATE VIEW v AS SELECT a FROM s.t", "DROP VIEW v", "v"),
        ("CREATE TABLE a (b int REFERENCES deals)", CONTRACT, "deals"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1", "DROP FUNCTION f()", "f"),
        ("ALTER TYPE status ADD VALUE 'x'", "DROP TYPE status", "status"),
        ("UPDATE a SET b = 1; UPDATE c SET d = 1", "DROP TABLE a, c", "a, c"),
    ],
)
def test_a_contract_beside_its_expand_is_refused_with_what_they_share_and_the_way(
    expand, contract, shared
):
    said = (
        rf"^012_step\.sql is a contract, and 011_step\.sql of the same deploy works on {shared} as "
        r"well\..* Deploy up to 011 first \(--up-to 11\), and 012 in a later deploy\.$"
    )
    with pytest.raises(Refused, match=said):
        phases.check(plan(("expand", expand), ("contract", contract)))


def test_of_several_expands_the_last_is_the_one_to_deploy_up_to():
    with pytest.raises(Refused, match=r"012_step\.sql of the same.* up to 012 first"):
        phases.check(plan(("expand", EXPAND), ("expand", EXPAND), ("contract", CONTRACT)))


def test_an_expand_behind_a_contract_is_refused_with_the_way():
    said = (
        r"^012_step\.sql is an expand behind the contract 011_step\.sql\..*"
        r"Deploy up to 011 first \(--up-to 11\), then 012\.$"
    )
    with pytest.raises(Refused, match=said):
        phases.check(plan(("contract", ELSEWHERE), ("expand", EXPAND)))


def test_a_plan_that_an_older_airlock_stored_has_expands_alone():
    stored = json.loads(
        record.dump(
            Plan(
                target="prod", head=None, migrations=plan(("contract", CONTRACT)), schema_before="f"
            )
        )
    )
    del stored["migrations"][0]["phase"]
    found = record.load(Plan, json.dumps(stored))
    assert (len(found.of_phase("expand")), found.of_phase("contract")) == (1, ())


def test_where_nothing_is_in_use_they_go_at_once():
    steps = plan(("contract", ELSEWHERE), ("expand", EXPAND), ("contract", CONTRACT))
    found = phases.at_once(steps)
    phases.check(found)
    assert [each.checksum for each in found] == [each.checksum for each in steps]
