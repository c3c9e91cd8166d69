"""What a statement does to the database: locks, rewrites, scans, rows.

One type for what is predicted from the syntax tree and what is measured on the clone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from airlock.syntax import Statement


class LockMode(IntEnum):
    """PostgreSQL's table lock modes, weakest first.

    https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
    """

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def pg_name(self) -> str:
        """The name in pg_locks, such as AccessExclusiveLock."""
        return self.name.title().replace("_", "") + "Lock"

    @classmethod
    def from_pg_name(cls, name: str) -> LockMode:
        return next(mode for mode in cls if mode.pg_name == name)

    @property
    def blocks_reads(self) -> bool:
        return self is LockMode.ACCESS_EXCLUSIVE

    @property
    def blocks_writes(self) -> bool:
        return self >= LockMode.SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one statement does to one relation that existed before it, predicted or measured."""

    relation: str | None  # schema.name; None: unknown which
    lock: LockMode | None  # None: unknown, as in a DO block
    held_s: float | None  # None: predicted
    rewrites: bool | None
    scans: bool | None

    @property
    def blocks_reads(self) -> bool:
        return self.lock is not None and self.lock.blocks_reads

    @property
    def blocks_writes(self) -> bool:
        return self.lock is not None and self.lock.blocks_writes

    @property
    def lock_name(self) -> str:
        """PostgreSQL's name of the mode; ``unknown`` where nothing is known."""
        return self.lock.pg_name if self.lock is not None else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEffects:
    """One statement, what it did on the clone, and what was predicted there.

    predicted: None in a rehearsal from before there were predictions. unknown: what of the
        statement nobody could predict.
    """

    line: int
    statement: str
    seconds: float
    wal_bytes: int
    rows: int | None
    effects: tuple[Effect, ...]
    predicted: tuple[Effect, ...] | None = None
    unknown: str = ""

    @property
    def surprises(self) -> tuple[Effect, ...]:
        """What was measured and not predicted: a stronger lock, a rewrite, a scan.

        A lock that an earlier statement of the transaction has taken is not measured again, so what
        was predicted and not measured says nothing.
        """
        if self.predicted is None or self.unknown:
            return ()
        known = {each.relation: each for each in self.predicted}
        return tuple(
            each for each in self.effects if not _is_foreseen(each, known.get(each.relation))
        )


def _is_foreseen(measured: Effect, predicted: Effect | None) -> bool:
    if predicted is None:
        return False
    weaker = (
        predicted.lock is not None and measured.lock is not None and predicted.lock < measured.lock
    )
    rewritten = bool(measured.rewrites) and predicted.rewrites is False
    scanned = bool(measured.scans) and predicted.scans is False
    return not (weaker or rewritten or scanned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one statement will do to the database in which it runs.

    effects: on relations that were there before the first statement; one whose fields are None says
        that what else it touches is unknown.
    new: relations that this statement or an earlier one makes, and that it works on.
    builds: existing tables of which an index is built.
    drops: what data is gone afterwards, such as ``column public.deals.note``.
    breaks: what running code may depend on and finds changed, such as ``column public.deals.note
        is renamed to remark``.
    transactional: whether it may run inside a transaction.
    unknown: why not all is known; empty where it is.
    """

    statement: Statement
    effects: tuple[Effect, ...] = ()
    new: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    transactional: bool = True
    unknown: str = ""

    @property
    def blocks_reads(self) -> bool:
        return any(effect.blocks_reads for effect in self.effects)

    @property
    def blocks_writes(self) -> bool:
        return any(effect.blocks_writes for effect in self.effects)
