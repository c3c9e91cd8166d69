"""What is run for a snapshot, as text."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airlock.binaries import Binaries
from airlock.snapshot import logical, physical, tool
from airlock.snapshot.facts import Facts

PASSWORD = "s3cret word"
URL = "postgresql://owner:s3cret%20word@db.example:6543/tracker?sslmode=require"


@pytest.fixture
def programs(tmp_path: Path) -> Binaries:
    for name in ("pg_dump", "pg_restore", "pg_basebackup"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    return Binaries(directory=tmp_path, major=15, version="15.9", source="test")


def a_facts(**changes: Any) -> Facts:
    facts = Facts(
        role="owner",
        server_version="15.9",
        server_major=15,
        system_identifier="7",
        wal_lsn="0/1",
        wal_level="replica",
        max_wal_senders=10,
        ssl_library="OpenSSL",
        is_standby=False,
        tablespaces=(),
        cluster_bytes=1,
        database_bytes=1,
        bootstrap_superuser="postgres",
        extensions=("plpgsql",),
        libraries=(),
        backup_role="owner",
        backup_role_is_superuser=False,
        backup_role_may_replicate=True,
        unreadable=(),
        settings={"wal_level": "replica", "TimeZone": "UTC"},
        database={
            "name": "tracker",
            "owner": "owner",
            "encoding": "UTF8",
            "lc_collate": "C.UTF-8",
            "lc_ctype": "C.UTF-8",
            "locale_provider": "c",
            "locale": None,
            "comment": None,
            "has_grants": False,
        },
        grants=(),
        database_settings=(),
        roles=(),
        memberships=(),
        needed_roles=("owner",),
    )
    return replace(facts, **changes)


def test_a_program_is_given_the_connection_and_nothing_else_of_our_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    for name, value in (("PGUSER", "somebody"), ("PGSSLMODE", "verify-full"), ("SECRET", "x")):
        monkeypatch.setenv(name, value)
    found = tool.environment(URL)
    assert {name: found[name] for name in found if name.startswith("PG")} == {
        "PGAPPNAME": "airlock snapshot",
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "owner",
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": "tracker",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "disable",
    }
    assert "SECRET" not in found
    assert [name for name in tool.environment(None) if name.startswith("PG")] == ["PGAPPNAME"]


def test_no_command_shows_a_password(programs: Binaries, tmp_path: Path) -> None:
    commands = [
        physical.command(programs, tmp_path / "data", checksums="SHA256"),
        logical.dump_command(programs, tmp_path / "data", jobs=3),
        logical.restore_command(programs, tmp_path / "data", database="tracker", jobs=3),
    ]
    for command in commands:
        assert "--no-password" in command
        assert not any(word in " ".join(command) for word in (PASSWORD, "s3cret", "owner"))


def test_a_restore_ends_at_the_first_error(programs: Binaries) -> None:
    command = logical.restore_command(programs, Path("/d"), database="x", jobs=2)
    assert "--exit-on-error" in command
    assert "--jobs=2" in command


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backup_role_may_replicate": False}, "owner has no REPLICATION"),
        ({"wal_level": "minimal"}, "wal_level minimal"),
        ({"max_wal_senders": 1}, "max_wal_senders 1"),
        ({"is_standby": True}, "is a standby"),
        ({"tablespaces": ("fast",)}, "tablespaces (fast)"),
    ],
)
def test_what_stands_against_a_physical_snapshot_is_said(
    changes: dict[str, Any], reason: str
) -> None:
    assert physical.why_not(a_facts()) is None
    assert reason in (physical.why_not(a_facts(**changes)) or "")


def test_a_clone_reaches_nobody(programs: Binaries) -> None:
    settings = physical.settings(a_facts(libraries=("pg_cron",)), ())
    assert settings["shared_preload_libraries"] == ""
    assert settings["max_wal_senders"] == "0"
    assert settings["max_logical_replication_workers"] == "0"
    assert settings["wal_level"] == "replica"
    assert settings["TimeZone"] == "UTC"


ROLE = {
    "name": 'o"dd',
    "superuser": False,
    "inherit": True,
    "createrole": False,
    "createdb": False,
    "login": True,
    "replication": False,
    "bypassrls": False,
}


@pytest.mark.parametrize(
    ("membership", "tail"),
    [
        ({"admin": False, "inherit": None, "set": None}, ""),
        ({"admin": True, "inherit": None, "set": None}, " WITH ADMIN OPTION"),
        (
            {"admin": False, "inherit": True, "set": False},
            " WITH ADMIN FALSE, INHERIT TRUE, SET FALSE",
        ),
    ],
)
def test_roles_are_made_without_passwords_and_with_memberships(
    membership: dict[str, Any], tail: str
) -> None:
    facts = a_facts(roles=(ROLE,), memberships=({"role": "a", "member": "b", **membership},))
    made = logical.role_statements(facts)
    assert made[0] == (
        'CREATE ROLE "o""dd" NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN '
        "NOREPLICATION NOBYPASSRLS"
    )
    assert made[1] == f'GRANT "a" TO "b"{tail}'


@pytest.mark.parametrize(
    ("provider", "locale", "words"),
    [
        ("c", None, "LC_CTYPE 'C.UTF-8'"),
        ("i", "de-DE", "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"),
        ("b", "C.UTF-8", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"),
    ],
)
def test_the_database_keeps_its_locale_provider(
    provider: str, locale: str | None, words: str
) -> None:
    database = {**a_facts().database, "locale_provider": provider, "locale": locale}
    made = logical.database_statements(a_facts(database=database), "x", "owner")
    assert words in made[0]
    assert made[0].endswith('OWNER "owner"')


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('search_path="$user", public', '"search_path" TO "$user", public'),
        ("search_path=", "\"search_path\" TO ''"),
        ("DateStyle=ISO, DMY", "\"DateStyle\" TO 'ISO, DMY'"),
        ("app.tenant=o'neil", "\"app\".\"tenant\" TO 'o''neil'"),
    ],
)
def test_settings_of_the_database_keep_their_form(setting: str, words: str) -> None:
    rows = ({"role": "", "in_database": True, "setting": setting},)
    made = logical.database_statements(a_facts(database_settings=rows), "x", None)
    assert made[1] == f'ALTER DATABASE "x" SET {words}'


def test_the_name_of_a_dev_database_fits() -> None:
    assert logical.dev_database("prod", "rehearsal-7") == "airlock_prod_rehearsal-7"
    assert len(logical.dev_database("ä" * 60, "x").encode()) <= 63


def test_facts_survive_their_file() -> None:
    facts = a_facts(roles=(ROLE,), extensions=("plpgsql", "vector"))

    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
