"""The manifest of a snapshot: what it is, and every file of it with size and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from airlock.errors import Refused

ProviderName = Literal["physical", "logical"]
MANIFEST = "manifest.json"
RESTORE = "restore.json"
DATA = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file; a path that ends in a slash is an empty folder."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One backup of a target's database, as its manifest describes it."""

    id: str
    provider: ProviderName
    provider_reason: str
    path: Path
    target: str
    database: str
    created_at: datetime
    seconds: float
    size_bytes: int
    sha256: str
    wal_lsn: str
    system_identifier: str
    server_version: str
    tool_version: str
    migration_head: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the ledger and for Prefect."""
        plain = asdict(self)
        return {**plain, "path": str(self.path), "created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Snapshot:
        """The snapshot that ``to_json`` described."""
        values = dict(plain)
        values["path"] = Path(values["path"])
        values["created_at"] = datetime.fromisoformat(values["created_at"])
        return cls(**values)


def new_id(now: datetime | None = None) -> str:
    """A name that sorts by time: 20260102T030405.678Z-1a2b3c."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{secrets.token_hex(3)}"


def digest(fields: Mapping[str, Any], files: Sequence[FileEntry]) -> str:
    """SHA-256 over everything in the manifest but itself and the place where it lies."""
    said = {name: value for name, value in fields.items() if name not in {"sha256", "path"}}
    document = {**said, "files": _plain(files)}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(folder: Path, snapshot: Snapshot, files: Sequence[FileEntry]) -> None:
    """Put manifest.json into the folder, and both onto the disk."""
    write_json(folder / MANIFEST, {**_stored(snapshot), "files": _plain(files)})
    sync_folder(folder)


def read(folder: Path) -> tuple[Snapshot, tuple[FileEntry, ...]]:
    """The snapshot in this folder and its files, as its manifest says.

    Raises Refused when the manifest is missing, damaged or was edited.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(
            FileEntry(path=name, size_bytes=size, sha256=sha)
            for name, size, sha in document.pop("files")
        )
        snapshot = Snapshot.from_json({**document, "path": str(folder)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path} cannot be read: {error}. Take a new snapshot.") from error
    found = digest(_stored(snapshot), files)
    if found != snapshot.sha256:
        raise Refused(
            f"{path} was edited: its SHA-256 is {found[:12]}, expected {snapshot.sha256[:12]}. "
            "Do not restore from it; take a new snapshot."
        )
    return snapshot, files


def write_json(path: Path, document: object) -> None:
    """A private file with JSON in it, on the disk."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Names in the folder are on the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _stored(snapshot: Snapshot) -> dict[str, Any]:
    plain = snapshot.to_json()
    del plain["path"]
    return plain


def _plain(files: Sequence[FileEntry]) -> list[list[str | int]]:
    return [[entry.path, entry.size_bytes, entry.sha256] for entry in files]
