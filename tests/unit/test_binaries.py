"""Which PostgreSQL programs are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airlock import binaries
from airlock.errors import Refused
from airlock.snapshot.tool import environment, run

TOOLS = ("postgres", "pg_dump")


def install(folder: Path, version: str, *tools: str) -> Path:
    folder.mkdir(parents=True)
    for tool in tools:
        path = folder / tool
        path.write_text(f'#!/bin/sh\necho "{tool} (PostgreSQL) {version}"\n')
        path.chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it but /bin."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'usr/bin'}:/bin")
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(binaries, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(binaries.shutil, "which", which_in(tmp_path / "usr/bin"))
    return tmp_path


def which_in(folder: Path) -> Callable[[str], str | None]:
    return lambda name: str(folder / name) if (folder / name).exists() else None


def test_pg_bin_comes_before_path_and_debian(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine / "debian/17/bin", "17.2", *TOOLS)
    install(machine / "usr/bin", "16.1", *TOOLS)
    named = install(machine / "own", "15.3", *TOOLS)
    monkeypatch.setenv("PG_BIN", str(named))
    found = binaries.find(need=TOOLS)
    assert (found.directory, found.major, found.source) == (named, 15, "PG_BIN")


def test_a_link_on_path_leads_to_the_folder_with_the_other_programs(machine: Path) -> None:
    real = install(machine / "real", "16.1", *TOOLS)
    (machine / "usr/bin").mkdir(parents=True)
    (machine / "usr/bin/postgres").symlink_to(real / "postgres")
    assert binaries.find(need=TOOLS).directory == real


def test_a_wrapper_without_a_server_beside_it_is_passed_over(machine: Path) -> None:
    install(machine / "usr/bin", "16.1", "pg_dump")
    debian = install(machine / "debian/9.6/bin", "9.6.24", *TOOLS).parent.parent
    newest = install(debian / "17/bin", "17.2", *TOOLS)
    install(debian / "15/bin", "15.9", *TOOLS)
    assert binaries.find(need=TOOLS).directory == newest


@pytest.mark.parametrize(
    ("wanted", "major"), [({"major": 15}, 15), ({"at_least": 16}, 17), ({"at_least": 15}, 17)]
)
def test_the_version_asked_for_is_found(machine: Path, wanted: dict[str, int], major: int) -> None:
    for each in ("15", "17"):
        install(machine / "debian" / each / "bin", f"{each}.1", *TOOLS)
    assert binaries.find(need=TOOLS, **wanted).major == major


def test_what_was_found_instead_is_named(machine: Path) -> None:
    install(machine / "debian/15/bin", "15.9", *TOOLS)
    install(machine / "debian/16/bin", "16.9", "pg_dump")
    with pytest.raises(Refused) as refused:
        binaries.find(at_least=18, need=TOOLS)
    text = str(refused.value)
    assert "version 18 or newer" in text
    assert "is version 15.9" in text
    assert "has no postgres" in text
    assert "PG_BIN" in text


def test_a_program_that_is_not_there_is_refused_by_name(machine: Path) -> None:
    install(machine / "debian/15/bin", "15.9", *TOOLS)
    with pytest.raises(Refused, match="has no pg_rewind"):
        binaries.find(need=TOOLS).tool("pg_rewind")


@pytest.mark.parametrize(
    ("text", "major"), [("15.17", 15), ("18beta1", 18), ("9.6.24", 9), ("devel", 0)]
)
def test_the_major_version_is_the_first_number(text: str, major: int) -> None:
    assert binaries.parse_major(text) == major


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> binaries.Binaries:
    """The programs of the wheel, which were built without TLS."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr(binaries, "DEBIAN", Path("/nonexistent"))
    monkeypatch.setattr(binaries.shutil, "which", lambda name: None)
    try:
        return binaries.find()
    except Refused as error:
        pytest.skip(str(error))


def test_programs_without_tls_are_not_chosen_where_it_is_needed(
    embedded: binaries.Binaries,
) -> None:
    with pytest.raises(Refused, match="that speak TLS") as refused:
        binaries.find(major=embedded.major, tls=True)
    said = str(refused.value)
    assert f"version {embedded.version}, was built without TLS" in said
    assert f"the package postgresql-{embedded.major}), or" in said


async def test_a_program_without_tls_is_refused_before_it_is_started(
    embedded: binaries.Binaries,
) -> None:
    command = [str(embedded.tool("pg_dump")), "--no-password"]
    with pytest.raises(Refused, match=f"the package postgresql-client-{embedded.major}"):
        await run(command, env=environment("postgresql://owner@db.example/tracker"))
