"""The forms in which findings are printed."""

from __future__ import annotations

import json

from airlock import lint
from airlock.effects import World
from airlock.lint import RULES, render
from tests.unit.lint.cases import linted

BAD = """\
-- airlock: allow index-not-concurrent because the table has 40 rows
CREATE INDEX i ON deals (a);
CREATE INDEX j ON deals (b);
ALTER TABLE deals ADD COLUMN at timestamp;
"""


def test_json_is_a_list_of_exactly_six_fields():
    found = json.loads(render.as_json(linted(BAD)))
    fields = ["file", "line", "rule", "level", "message", "remedy"]
    assert [list(each) for each in found] == [fields, fields]
    first = found[0]
    assert (first["file"], first["line"], first["level"]) == ("001.sql", 3, "error")
    sql, _, source = first["remedy"].rpartition("\n-- ")
    assert sql == "CREATE INDEX CONCURRENTLY j ON deals (b);"
    assert source.startswith("https://www.postgresql.org/docs/current/")
    assert json.loads(render.as_json(linted("SELECT 1;"))) == []


def test_text_says_where_what_instead_and_how_many():
    text = render.text(linted(BAD))
    assert (
        "001.sql:3  error  index-not-concurrent\n  Nobody writes public.deals (ShareLock)" in text
    )
    assert "\n    CREATE INDEX CONCURRENTLY j ON deals (b);\n" in text
    assert text.endswith("1 file, 2 findings (1 error, 1 warning), 1 allowed.")
    assert render.text(linted("SELECT 1;")) == "1 file, 0 findings."


def test_github_shows_each_finding_at_its_line():
    first, *_ = render.github(linted(BAD)).split("\n")
    assert first.startswith("::error file=001.sql,line=3,title=index-not-concurrent::Nobody writes")
    assert "%0ACREATE INDEX CONCURRENTLY" in first


def test_what_would_end_an_annotation_is_escaped():
    script = lint.read("a,b:c%.sql", "SELEKT 1;")
    found = render.github(lint.lint([script], World(major=16), lint.Policy()))
    assert found.startswith("::error file=a%2Cb%3Ac%25.sql,line=1,")
    assert "\n" not in found


def test_sarif_has_what_2_1_0_requires():
    log = json.loads(render.sarif(linted(BAD)))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "airlock"
    rules = driver["rules"]
    assert [each["id"] for each in rules] == list(RULES)
    assert all(each["shortDescription"]["text"] for each in rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("note", "warning", "error")
        assert result["message"]["text"]
        (place,) = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == "001.sql"
        assert place["physicalLocation"]["region"]["startLine"] >= 1


def test_sarif_carries_what_is_allowed_with_its_reason():
    (run,) = json.loads(render.sarif(linted(BAD)))["runs"]
    quiet = [each for each in run["results"] if "suppressions" in each]
    assert [each["ruleId"] for each in quiet] == ["index-not-concurrent"]
    assert quiet[0]["suppressions"] == [
        {"kind": "inSource", "justification": "the table has 40 rows"}
    ]


def test_the_list_of_rules_has_each_with_its_level_and_summary():
    text = render.rules()
    for rule in RULES.values():
        assert f"  {rule.id} " in text
        assert rule.summary in text
    assert len(json.loads(render.rules_as_json())) == len(RULES)
