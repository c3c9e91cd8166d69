"""Each rule finds what it is about, lets the safe form be, and writes SQL that runs."""

from __future__ import annotations

import pytest

from airlock import lint, migration, syntax
from airlock.effects import World
from airlock.lint import Level, Policy
from airlock.lint.site import LATER, NEXT
from tests.unit.lint.cases import CASES, Case, linted

# Found by the files' own tests: a rule about the migrations folder.
ELSEWHERE = {"file", "header"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_finds_the_bad_and_lets_the_good_be(case: Case):
    found = {finding.rule for finding in linted(*case.files).findings}
    assert (case.rule in found) is case.bad


@pytest.mark.parametrize("case", [case for case in CASES if not case.bad], ids=str)
def test_the_good_form_breaks_no_other_rule(case: Case):
    found = linted(*case.files).findings
    assert [f"{each.rule}: {each.message}" for each in found if each.level >= Level.ERROR] == []


def test_every_rule_has_a_bad_case_and_a_good_one():
    for bad in (True, False):
        assert {case.rule for case in CASES if case.bad is bad} == lint.RULES.keys() - ELSEWHERE


@pytest.mark.parametrize("case", [case for case in CASES if case.bad], ids=str)
def test_what_a_finding_says_to_write_is_sql_and_a_backfill_where_it_says_so(case: Case):
    for finding in linted(*case.files).findings:
        syntax.parse(finding.remedy)
        for part in _parts(finding.remedy):
            migration.script(part)
        assert finding.message.endswith(".")
        assert "  " not in finding.message


def _parts(remedy: str) -> list[str]:
    """The files that a remedy is to be divided into."""
    return remedy.replace(LATER, NEXT).split(NEXT)


# Where the safe way keeps something that another rule, or the same one, still speaks of.
STILL = {
    "attach-partition": "which column the bounds are of is not in the statement",
    "foreign-key-without-index": "of a new table: into the file that makes it",
}


@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize("case", [case for case in CASES if case.bad], ids=str)
def test_what_a_finding_says_to_write_is_safe(case: Case, major: int):
    for finding in linted(*case.files, major=major).findings:
        for again in linted(*_parts(finding.remedy), major=major).findings:
            if again.level < Level.ERROR or again.rule == "expand-and-contract":
                continue
            assert finding.rule in STILL, f"{again.rule} in\n{finding.remedy}"


@pytest.mark.parametrize("major", [13, 14, 15, 16, 17, 18])
def test_the_rules_are_asked_of_every_version(major: int):
    found = linted("CREATE INDEX i ON deals (a);", major=major).findings
    assert [each.rule for each in found] == ["index-not-concurrent"]


def test_a_table_that_an_earlier_file_of_the_release_makes_is_new():
    made = "CREATE TABLE halts (id bigint, code text);"
    assert linted(made, "CREATE INDEX i ON halts (code);").findings == ()
    assert len(linted("CREATE INDEX i ON halts (code);").findings) == 1


def test_what_history_made_is_there_and_is_not_judged():
    old = lint.read("001.sql", "CREATE TABLE a (id int PRIMARY KEY, note text);", history=True)
    new = lint.read("002.sql", "CREATE INDEX i ON a (note);")
    found = lint.lint([old, new], World(major=16), Policy())
    assert [(each.file, each.rule) for each in found.findings] == [
        ("002.sql", "index-not-concurrent")
    ]
    assert (found.files, found.history) == (2, 1)


def test_each_command_of_an_alter_table_is_judged_by_itself():
    sql = "ALTER TABLE deals ADD COLUMN note text, ALTER COLUMN price SET NOT NULL, DROP COLUMN x;"
    found = {each.rule for each in linted(sql).findings}
    assert {"set-not-null", "drop-column", "expand-and-contract"} <= found
    assert not {"add-column-not-null", "table-scanned"} & found


def test_levels_are_a_target_s_own():
    sql = "CREATE INDEX i ON deals (a);"
    for level in (Level.INFO, Level.WARNING, Level.ERROR):
        policy = Policy(levels={"index-not-concurrent": level})
        assert [each.level for each in linted(sql, policy=policy).findings] == [level]
    policy = Policy(levels={"index-not-concurrent": Level.OFF})
    assert linted(sql, policy=policy).findings == ()


def test_only_what_is_at_the_blocking_level_blocks():
    found = linted("UPDATE deals SET a = 1 WHERE b = 2;")
    assert [each.level for each in found.findings] == [Level.WARNING]
    assert not found.blocks(Level.ERROR)
    assert found.blocks(Level.WARNING)
    assert not linted("TRUNCATE deals;").blocks(Level.NEVER)
