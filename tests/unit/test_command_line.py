"""The commands that need no database, and what a wrong command line answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from airlock import __main__ as command_line
from airlock import review, settings
from airlock.errors import Broken, LeaseLost, Refused, Stranded, Transient
from flows.__main__ import _status_of
from tests.unit.test_alert import deploy

GOOD = "CREATE TABLE a (id int);\n-- ROLLBACK NOTES\n-- DROP TABLE a;\n"
HEADER = "-- Purpose: x\n-- Author: y\n-- Date: 2026-01-01\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "airlock.toml").write_text('[targets.prod]\ndatabase_url_env = "PROD_URL"\n')
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / "airlock.toml"))
    monkeypatch.delenv("PROD_URL", raising=False)
    return tmp_path / "migrations"


@pytest.fixture
def airlock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A function: arguments to exit status, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["airlock", *arguments])
        status = 0
        try:
            command_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_new_writes_the_next_file_from_the_template(folder: Path, airlock, monkeypatch):
    monkeypatch.setenv("AIRLOCK_REQUESTER", "Ada")
    status, out, _ = airlock("new", "Add  GIN index,\non JSONB {x}!")
    assert status == 0
    path = folder / "001_add_gin_index_on_jsonb_x.sql"
    assert str(path) in out
    text = path.read_text(encoding="utf-8")
    assert "-- Migration 001: Add GIN index, on JSONB {x}!\n" in text
    assert "-- Author: Ada\n" in text
    assert "Phase" not in text
    airlock("new", "second", "--phase", "contract")
    assert "\n-- Phase: contract\n\n" in (folder / "002_second.sql").read_text(encoding="utf-8")


def test_a_description_without_letters_is_refused(folder: Path, airlock):
    status, _, err = airlock("new", "…")
    assert (status, list(folder.iterdir())) == (1, [])
    assert "Describe the change" in err


def test_lint_names_each_file_with_something_to_mend(folder: Path, airlock):
    (folder / "001_good.sql").write_text(HEADER + GOOD)
    (folder / "002_bare.sql").write_text(GOOD.replace(" a ", " b ").replace(" a;", " b;"))
    (folder / "003_bad.sql").write_text(HEADER + "SELEKT 1;")
    (folder / "004_one_way.sql").write_text(HEADER + "SELECT 1;")
    (folder / "misnamed.sql").write_text(GOOD)
    status, out, _ = airlock("lint")
    assert status == 1
    assert "002_bare.sql:1  error  header" in out
    assert "002_bare.sql has no Purpose, Author, Date in its header." in out
    assert "003_bad.sql:4  error  syntax" in out
    assert "004_one_way.sql has no ROLLBACK NOTES." in out
    assert "misnamed.sql is not a migration's name" in out
    assert "5 files, 4 findings (4 errors)." in out
    status, out, _ = airlock("lint", "--json")
    assert [(Path(each["file"]).name, each["rule"]) for each in json.loads(out)] == [
        ("002_bare.sql", "header"),
        ("003_bad.sql", "syntax"),
        ("004_one_way.sql", "file"),
        ("misnamed.sql", "file"),
    ]


def test_lint_of_good_files_is_done(folder: Path, airlock):
    (folder / "001_good.sql").write_text(HEADER + GOOD)
    assert airlock("lint")[0] == 0
    status, out, _ = airlock("lint", "--json", str(folder / "001_good.sql"))
    assert (status, json.loads(out)) == (0, [])


def test_lint_of_a_file_that_is_not_there_says_so(folder: Path, airlock):
    status, out, _ = airlock("lint", str(folder / "009_gone.sql"))
    assert status == 1
    assert "009_gone.sql cannot be read" in out


def test_lint_reads_any_sql_file_without_a_project(tmp_path: Path, airlock, monkeypatch):
    monkeypatch.delenv(settings.CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "change.sql").write_text("BEGIN;\nTRUNCATE deals;\nCOMMIT;\n")
    for named in ("sub/change.sql", "sub"):
        status, out, _ = airlock("lint", named, "--format", "json")
        assert status == 1
        assert [(each["file"], each["line"], each["rule"]) for each in json.loads(out)] == [
            ("sub/change.sql", 2, "truncate")
        ]
    status, _, err = airlock("lint")
    assert status == 1
    assert "No airlock.toml" in err


def test_lint_says_which_migrations_are_history(folder: Path, airlock):
    (folder / "001_a.sql").write_text(HEADER + GOOD.replace("id int", "id int PRIMARY KEY"))
    (folder / "002_i.sql").write_text(
        HEADER + "CREATE INDEX i ON a (id);\n-- ROLLBACK NOTES\n-- DROP INDEX i;\n"
    )
    status, out, _ = airlock("lint")
    assert (status, "key-32-bit" in out, "index-not-concurrent" in out) == (0, True, False)
    assert "All were taken for one release" in out
    config = folder.parent / "airlock.toml"
    config.write_text("lint_after = 1\n" + config.read_text())
    status, out, _ = airlock("lint")
    assert (status, "key-32-bit" in out, "index-not-concurrent" in out) == (1, False, True)
    assert "1 file, 1 finding (1 error), 1 older file not judged." in out


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("", 1),
        ('fail_on = "never"', 0),
        ('levels = { truncate = "warning" }', 0),
        ('levels = { truncate = "info" }\nfail_on = "info"', 1),
        ('levels = { truncate = "off" }\nfail_on = "info"', 0),
    ],
)
def test_a_target_decides_what_blocks(folder: Path, said: str, status: int):
    config = folder.parent / "airlock.toml"
    config.write_text(f"{config.read_text()}\n[targets.prod.lint]\n{said}\n")
    policy = review.policy(settings.target("prod").lint)
    path = folder.parent / "change.sql"
    path.write_text("TRUNCATE deals;\n")
    found = review.review([path], settings.load(), policy, None, 16)
    assert found.blocks(policy.fail_on) == bool(status)


def test_a_level_for_a_rule_that_is_not_there_is_refused(folder: Path, airlock):
    config = folder.parent / "airlock.toml"
    config.write_text(config.read_text() + '[targets.prod.lint]\nlevels = { trunkate = "off" }\n')
    status, _, err = airlock("lint", "--target", "prod")
    assert status == 1
    assert "trunkate, and there is no such rule" in err


def test_lint_lists_its_rules_and_knows_four_formats(folder: Path, airlock):
    (folder / "001_bad.sql").write_text("TRUNCATE deals;")
    assert "index-not-concurrent" in airlock("lint", "--rules")[1]
    assert airlock("lint", "--format", "github")[1].startswith("::error file=")
    assert json.loads(airlock("lint", "--format", "sarif")[1])["version"] == "2.1.0"
    assert airlock("lint", "--format", "xml")[0] == 1


@pytest.mark.parametrize(
    "arguments", [("plan",), ("plan", "prod", "--no-such"), ("nonsense",), ("history", "--limit")]
)
def test_a_wrong_command_line_does_not_say_rolled_back(folder: Path, airlock, arguments):
    del folder
    status, _, err = airlock(*arguments)
    assert status == 1
    assert "Error" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "dev"), "no target 'dev'"),
        (("plan", "prod"), "export PROD_URL="),
        (("history", "prod"), "export PROD_URL="),
        (("rollback", "dev"), "no target 'dev'"),
        (("deploy", "dev"), "no target 'dev'"),
    ],
)
def test_what_is_refused_is_one_message_and_status_1(folder: Path, airlock, arguments, said):
    del folder
    status, out, err = airlock(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("airlock: ")
    assert said in err


@pytest.mark.parametrize(
    ("error", "status"),
    [(Refused, 1), (LeaseLost, 1), (Transient, 1), (Broken, 2), (Stranded, 3)],
)
def test_each_kind_of_error_has_its_status(airlock, monkeypatch, error, status):
    def fail() -> None:
        raise error("it is so")

    monkeypatch.setattr(command_line, "app", fail)
    assert airlock() == (status, "", "airlock: it is so\n")


@pytest.mark.parametrize(
    ("flow", "state", "failure", "status"),
    [
        ("deploy", "succeeded", None, 0),
        ("deploy", "failed", None, 0),  # a dry run
        ("deploy", "failed", "drifted", 1),
        ("deploy", "rolled_back", "unhealthy", 2),
        ("refresh", "rolled_back", "unhealthy", 2),
        ("rollback", "rolled_back", "asked for", 0),
        ("rollback", "failed", "asked for", 0),
        ("rollback", "succeeded", None, None),
        ("recover", "succeeded", None, 0),
        ("recover", "rolled_back", "cut off", 0),
        ("rollback", "stranded", "the way back", 3),
        ("deploy", "applying", None, None),
    ],
)
def test_the_ledger_says_how_a_run_ended_that_prefect_lost(
    flow: str, state: str, failure: str | None, status: int | None
) -> None:
    assert _status_of(flow, deploy(state=state, failure=failure)) == status


def test_effects_predicts_any_file_of_sql(tmp_path: Path, airlock):
    file = tmp_path / "any.sql"
    file.write_text("-- nothing of ours\nDROP TABLE a;\nDO $$ BEGIN NULL; END $$")
    status, out, _ = airlock("effects", str(file), "--pg", "16", "--json")
    first, second = json.loads(out)
    assert (status, first["line"], first["statement"]) == (0, 2, "DROP TABLE a")
    (effect,) = first["effects"]
    assert effect == {
        "relation": "public.a",
        "lock": "AccessExclusiveLock",
        "rewrites": False,
        "scans": False,
    }
    assert second["effects"][0]["lock"] is None
    status, out, _ = airlock("effects", str(file))
    assert "public.a: AccessExclusiveLock (blocks reads and writes)" in out
    assert "unknown: what the block does" in out


def test_effects_says_at_which_line_a_file_is_not_sql(tmp_path: Path, airlock):
    file = tmp_path / "any.sql"
    assert airlock("effects", str(file))[0::2] == (
        1,
        f"airlock: {file} cannot be read: No such file or directory. Name a file of SQL.\n",
    )
    file.write_text("SELECT 1;\nSELEC 2")
    status, _, err = airlock("effects", str(file))
    assert (status, "any.sql, line 2: syntax error" in err) == (1, True)


def test_all_that_the_command_line_prints_can_be_seen():
    """Not what a terminal would obey: see airlock.visible."""
    source = Path(command_line.__file__).read_text(encoding="utf-8")
    assert source.count("typer.echo(") == 1
