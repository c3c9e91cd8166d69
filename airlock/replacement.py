"""One refresh as the ledger keeps it: the database it builds, the one it replaces, and what it did.

The names are written before the databases are made, so that whoever comes later can clear up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

# What is built for a refresh, and what a database was before one.
Kind = Literal["build", "before"]

# PostgreSQL cuts names at 63 bytes.
_NAME_BYTES = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedCopy:
    """What is in the copy, and what was looked at before anybody could reach it.

    left_behind: kinds of objects that are not in it, each with its number.
    checks: sentences, each with its number.
    """

    tables: int
    rows: int
    masked_columns: int
    checks: tuple[str, ...]
    seconds: float
    left_behind: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Such as ``12 tables, 3,400 rows, 21 columns masked, in 4.2 s``."""
        left = f"; left behind: {', '.join(self.left_behind)}" if self.left_behind else ""
        return (
            f"{self.tables} tables, {self.rows:,} rows, {self.masked_columns} columns masked, "
            f"in {self.seconds:.1f} s{left}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Which database becomes which.

    source: the target whose snapshot is copied.
    database, database_oid: what serves before.
    build, build_oid: what is built; no oid before it was made.
    kept: the name of the old database afterwards.
    adopted: the newest migration that came with the copy.
    """

    source: str
    database: str
    database_oid: int
    build: str
    kept: str
    build_oid: int | None = None
    snapshot_at: datetime | None = None
    adopted: str | None = None
    copied: MaskedCopy | None = None

    @classmethod
    def of(cls, deploy: int, *, source: str, database: str, oid: int) -> Replacement:
        """The names for one refresh, which no other refresh of this database has."""
        return cls(
            source=source,
            database=database,
            database_oid=oid,
            build=named("build", database, deploy),
            kept=named("before", database, deploy),
        )

    def built(self, oid: int) -> Replacement:
        return replace(self, build_oid=oid)

    @property
    def origin(self) -> str:
        """Whose data these are, and of when."""
        if self.snapshot_at is None:
            return self.source
        return f"{self.source} of {self.snapshot_at:%Y-%m-%d %H:%M} UTC"


def named(kind: Kind, database: str, deploy: int) -> str:
    """What a database of one refresh is called, such as ``tracker_build_7``."""
    ending = f"_{kind}_{deploy}"
    front = database.encode()[: _NAME_BYTES - len(ending)].decode(errors="ignore")
    return front + ending
