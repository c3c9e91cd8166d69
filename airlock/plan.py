"""Which migrations are pending, and whether they may be applied at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from airlock import migration
from airlock.errors import Refused
from airlock.migration import Migration, MigrationFile, Phase

MigrationState = Literal["started", "applied", "rolled_back", "adopted", "replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMigration:
    """A migration as the ledger knows it."""

    version: int
    name: str
    checksum: str
    state: MigrationState
    deploy: int
    position: int
    applied_at: datetime | None
    forward: str
    reverse: str
    segments_done: int
    reverse_segments_done: int

    @property
    def label(self) -> str:
        return migration.label(self.version, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The pending migrations of one target, in order, and the schema they were planned for."""

    target: str
    head: str | None  # the newest applied migration's label
    migrations: tuple[Migration, ...]
    schema_before: str  # fingerprint

    @property
    def versions(self) -> str:
        """Such as ``010`` or ``010…012``; ``none`` for an empty plan."""
        if not self.migrations:
            return "none"
        first, last = self.migrations[0].version, self.migrations[-1].version
        return f"{first:03d}" if first == last else f"{first:03d}…{last:03d}"

    @property
    def checksums(self) -> tuple[str, ...]:
        return tuple(each.checksum for each in self.migrations)

    def of_phase(self, phase: Phase) -> tuple[Migration, ...]:
        """The migrations of one phase; those of the contract are the plan's last."""
        return tuple(each for each in self.migrations if each.phase == phase)


def pending(
    files: Sequence[MigrationFile], applied: Sequence[AppliedMigration], *, up_to: int | None = None
) -> tuple[Migration, ...]:
    """The migrations to apply, parsed. Raises Refused when folder and ledger disagree."""
    _check_numbers(files)
    by_version = {file.version: file for file in files}
    for row in applied:
        _check_unchanged(row, by_version.get(row.version))
    done = {row.version for row in applied}
    newest = max(done, default=0)
    waiting = [file for file in files if file.version not in done]
    for file in waiting:
        if file.version < newest:
            raise Refused(
                f"{file.file} is numbered below {newest:03d}, which is already applied. "
                f"Rename it to a number above {max(by_version):03d}; migrations run in order."
            )
    if up_to is not None and up_to not in by_version:
        raise Refused(
            f"There is no migration {up_to:03d} to go up to; the folder has "
            f"{_range(files)}. Choose one of these."
        )
    limit = up_to if up_to is not None else max(by_version, default=0)
    return tuple(migration.parse(file) for file in waiting if file.version <= limit)


def _check_numbers(files: Sequence[MigrationFile]) -> None:
    for before, after in pairwise(files):
        if before.version == after.version:
            raise Refused(
                f"{before.file} and {after.file} both carry the number {after.version:03d}. "
                f"Rename one of them to {files[-1].version + 1:03d}."
            )


def _check_unchanged(row: AppliedMigration, file: MigrationFile | None) -> None:
    when = f"{row.applied_at:%Y-%m-%d}" if row.applied_at else "earlier"
    if file is None:
        raise Refused(
            f"{row.label}.sql was applied on {when} and is no longer in the folder. Bring the file "
            "back; to undo a migration use airlock rollback."
        )
    if file.checksum != row.checksum:
        raise Refused(
            f"{file.file} changed after it was applied on {when}: checksum {row.checksum[:8]} "
            f"became {file.checksum[:8]}. Restore the file; put the change in a new migration."
        )
    if file.name != row.name:
        raise Refused(
            f"{row.label}.sql was renamed to {file.file} after it was applied on {when}. "
            "Give it back its name."
        )


def _range(files: Sequence[MigrationFile]) -> str:
    if not files:
        return "none"
    return f"{files[0].version:03d} to {files[-1].version:03d}"
