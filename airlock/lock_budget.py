"""The lock budget: how long anybody may be kept waiting, decided on what the rehearsal measured."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from airlock.effects import Effect, StatementEffects
from airlock.errors import Refused
from airlock.rehearsal import Rehearsal
from airlock.request import Gate
from airlock.settings import Target

log = logging.getLogger(__name__)

NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A lock on a relation from before that was held on the clone for longer than the budget."""

    migration: str  # label
    statement: StatementEffects
    effect: Effect

    @property
    def sentence(self) -> str:
        """Such as ``011_score.sql, line 7: CREATE INDEX …: public.deals ShareLock for 812 ms``."""
        where = f"{self.migration}.sql, line {self.statement.line}: {self.statement.statement}"
        kept = "reads and writes wait" if self.effect.blocks_reads else "writes wait"
        return (
            f"{where}: {self.effect.relation} {self.effect.lock_name} for {self.ms:.0f} ms, {kept}"
        )

    @property
    def ms(self) -> float:
        """How long it was held."""
        return (self.effect.held_s or 0) * 1000


def excesses(rehearsal: Rehearsal, max_block_ms: int) -> tuple[Excess, ...]:
    """Every lock that blocks reads or writes and was held longer, in the order of the plan."""
    return tuple(
        Excess(migration=migration.label, statement=statement, effect=effect)
        for migration in rehearsal.migrations
        for statement in migration.statements
        for effect in statement.effects
        if effect.blocks_writes and (effect.held_s or 0) * 1000 > max_block_ms
    )


def check(target: Target, rehearsal: Rehearsal, *, skip: Collection[Gate] = ()) -> None:
    """Raises Refused where the clone shows that production would be kept waiting too long."""
    budget_ms = target.budget.max_block_ms
    found = excesses(rehearsal, budget_ms)
    if not found:
        return
    lines = "\n".join(_lines(found))
    if "lock_budget" in skip:
        log.info("Left out on request, beyond %d ms on the clone:\n%s", budget_ms, lines)
        return
    lint = "\n".join(f"  airlock lint {shlex.quote(file)}" for file in _files(target, found))
    raise Refused(
        f"On the clone others would have been kept waiting for longer than {target.name}'s "
        f"max_block_ms of {budget_ms}:\n{lines}\nProduction is untouched. How the same is done "
        f"without it says:\n{lint}\nOr deploy it as it is, at a quiet hour:\n"
        f'  airlock deploy {target.name} --skip lock_budget --reason "…"'
    )


def _lines(found: Collection[Excess]) -> Iterator[str]:
    for each in [*found][:NAMED]:
        yield f"- {each.sentence}"
    if len(found) > NAMED:
        yield f"- and {len(found) - NAMED} more, in the report"


def _files(target: Target, found: Collection[Excess]) -> list[str]:
    folder = target.migrations_dir
    if folder.is_relative_to(target.root):
        folder = folder.relative_to(target.root)
    return [str(Path(folder, f"{name}.sql")) for name in dict.fromkeys(e.migration for e in found)]
