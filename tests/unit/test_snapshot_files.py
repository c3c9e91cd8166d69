"""The manifest against the files, and folders that one process owns."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airlock.errors import Refused
from airlock.snapshot import files, manifest
from airlock.snapshot.manifest import FileEntry, Snapshot

NEVER = threading.Event()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "snapshot"
    (root / "data/base").mkdir(parents=True)
    (root / "data/empty").mkdir()
    (root / "data/base/1").write_bytes(os.urandom(3 * files.CHUNK_BYTES + 17))
    (root / "data/base/2").write_bytes(b"")
    (root / "restore.json").write_text("{}")
    return root


def signed(folder: Path, entries: tuple[FileEntry, ...]) -> Snapshot:
    fields = {
        "id": manifest.new_id(),
        "provider": "logical",
        "provider_reason": "asked for",
        "path": str(folder),
        "target": "prod",
        "database": "tracker",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat(),
        "seconds": 1.5,
        "size_bytes": 3,
        "wal_lsn": "0/1",
        "system_identifier": "7",
        "server_version": "15.9",
        "tool_version": "15.9",
        "migration_head": "009",
    }
    return Snapshot.from_json({**fields, "sha256": manifest.digest(fields, entries)})


EVERYTHING = ["data/base/1", "data/base/2", "restore.json", "data/base", "data/empty", "data", "."]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_disk_that_cannot_keep_a_file_or_a_folder_fails_the_seal(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = (folder / name).stat().st_ino

    def fsync(number: int) -> None:
        if os.fstat(number).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        files.seal(folder, 2, NEVER)


def damage_truncate(root: Path) -> str:
    os.truncate(root / "data/base/1", 100)
    return "data/base/1 has 100 bytes"


def damage_flip(root: Path) -> str:
    path = root / "data/base/1"
    content = bytearray(path.read_bytes())
    content[files.CHUNK_BYTES + 5] ^= 0x10
    path.write_bytes(content)
    return "data/base/1 has SHA-256"


def damage_remove(root: Path) -> str:
    (root / "data/base/2").unlink()
    return "data/base/2 is missing"


def damage_remove_folder(root: Path) -> str:
    (root / "data/empty").rmdir()
    return "data/empty/ is missing"


def damage_add(root: Path) -> str:
    (root / "data/base/3").write_bytes(b"x")
    return "data/base/3 does not belong"


def damage_link(root: Path) -> str:
    (root / "data/base/2").unlink()
    (root / "data/base/2").symlink_to("1")
    return "data/base/2 is not a file"


DAMAGES = [
    damage_truncate, damage_flip, damage_remove, damage_remove_folder, damage_add, damage_link,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_by_the_name_of_the_file(
    folder: Path, damage: Callable[[Path], str]
) -> None:
    entries = files.seal(folder, 2, NEVER)
    files.check(folder, entries, 2, NEVER)
    said = damage(folder)
    with pytest.raises(Refused) as refused:
        files.check(folder, entries, 2, NEVER)
    assert said in str(refused.value).replace("data/empty is", "data/empty/ is")


def test_a_copy_is_checked_on_the_way(folder: Path, tmp_path: Path) -> None:
    entries = files.seal(folder, 2, NEVER)
    files.copy(folder, "data", tmp_path / "copy", entries, workers=2, stop=NEVER)
    assert (tmp_path / "copy/base/1").read_bytes() == (folder / "data/base/1").read_bytes()
    assert (tmp_path / "copy/empty").is_dir()
    damage_flip(folder)
    with pytest.raises(Refused, match="base/1 has SHA-256"):
        files.copy(folder, "data", tmp_path / "again", entries, workers=2, stop=NEVER)


def test_everything_is_made_private(folder: Path) -> None:
    files.make_private(folder)
    for path in folder.rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [('"migration_head": "009"', '"migration_head": "010"'), ('"data/base/1"', '"data/base/9"')],
)
def test_an_edited_manifest_is_refused(folder: Path, before: str, after: str) -> None:
    entries = files.seal(folder, 1, NEVER)
    snapshot = signed(folder, entries)
    manifest.write(folder, snapshot, entries)
    assert manifest.read(folder) == (snapshot, entries)
    path = folder / manifest.MANIFEST
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(Refused, match=r"manifest\.json was edited"):
        manifest.read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": [["x"]]}'])
def test_a_damaged_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / manifest.MANIFEST).write_text(text)
    with pytest.raises(Refused, match=r"manifest\.json"):
        manifest.read(folder)


def test_a_snapshot_survives_json(folder: Path) -> None:
    snapshot = signed(folder, ())
    assert Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot


def test_ids_sort_by_time() -> None:
    early = manifest.new_id(datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC))
    late = manifest.new_id(datetime(2026, 1, 2, 3, 4, 5, 70000, tzinfo=UTC))
    assert early < late
    assert early.startswith("20260102T030405.006Z-")


def test_only_what_has_no_living_owner_is_swept(tmp_path: Path) -> None:
    for name in ("dead", "alive"):
        (tmp_path / f".tmp-{name}").mkdir()
    (tmp_path / ".tmp-dead.lock").touch()
    with files.owned(tmp_path / ".tmp-alive"):
        assert files.sweep(tmp_path, ".tmp-*", files.remove_tree) == (".tmp-dead",)
        with (
            pytest.raises(Refused, match="in use by another process"),
            files.owned(tmp_path / ".tmp-alive"),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-alive"]


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from airlock.snapshot import files\n"
        "with files.owned(pathlib.Path(sys.argv[1])) as f: f.mkdir(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    assert (tmp_path / "x").is_dir()
    assert files.sweep(tmp_path, "[!.]*", files.remove_tree) == ("x",)
    assert not list(tmp_path.iterdir())
