"""What the rehearsal saw of a migration, and what holds production to it.

A rewrite that the clone did not see is refused before it begins, where the role may create event
triggers; whatever the role, a statement has a multiple of its rehearsed time and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from airlock import postgres
from airlock.effects import Segment, StatementEffects
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.settings import Budget
from airlock.syntax import Statement

# A statement may take so many times its rehearsed time, and so long in any case: production is
# colder than the clone, and others work on it.
TIMES = 10
AT_LEAST_S = 5.0

# What may rewrite a table that was there: itself, or in what it calls.
_MAY_REWRITE = {
    "AlterExtensionStmt",
    "AlterTableStmt",
    "AlterTypeStmt",
    "CallStmt",
    "CreateExtensionStmt",
    "DoStmt",
    "ExecuteStmt",
    "SelectStmt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restraint:
    """What the clone saw of one migration's statements.

    rewritten: the relations that were rewritten, as schema.name.
    seconds: of each statement, by its line and its summary; empty where the migration says itself
        how long they may take.
    """

    budget: Budget
    rewritten: tuple[str, ...]
    seconds: Mapping[tuple[int, str], float]

    @classmethod
    def of(
        cls, seen: Sequence[StatementEffects], segments: Iterable[Segment], budget: Budget
    ) -> Restraint:
        seconds: dict[tuple[int, str], float] = {}
        for each in () if has_own_limit(segments) else seen:
            key = each.line, each.statement
            seconds[key] = max(each.seconds, seconds.get(key, 0))
        effects = (effect for each in seen for effect in each.effects)
        rewritten = {effect.relation for effect in effects if effect.rewrites and effect.relation}
        return cls(budget=budget, rewritten=tuple(sorted(rewritten)), seconds=seconds)

    def around(self, conn: Conn, lease: Lease, segment: Segment) -> tuple[str, str]:
        """SQL after the begin of a transaction, and before the ledger's row at its end."""
        begin = end = ""
        may_rewrite = any(each.kind in _MAY_REWRITE for each in segment.statements)
        # Others may not create event triggers. The server tells them nothing of VACUUM FULL and
        # CLUSTER.
        if may_rewrite and conn.get_settings().is_superuser == "on":
            # Without a dollar, which could end the function's body.
            names = json.dumps(self.rewritten).replace("$", "\\u0024")
            begin = postgres.query("rewrite_guard").format(
                deploy=lease.deploy, rewritten=postgres.quote_literal(names)
            )
            end = "DROP EVENT TRIGGER airlock_rewrite; DROP FUNCTION airlock.refuse_rewrite();"
        if self.seconds:
            # What was deferred to the COMMIT has the time of the budget.
            end += f"SET LOCAL statement_timeout = {self._longest_ms};"
        return begin, end

    def limit(self, statement: Statement) -> str:
        """SQL that goes before a statement, in the same message."""
        return f"SET LOCAL statement_timeout = {self.limit_ms(statement)}; " if self.seconds else ""

    def limit_ms(self, statement: Statement) -> int:
        """How long the statement may take, waiting for a lock included."""
        seconds = self._seconds(statement)
        if seconds is None:
            return self._longest_ms
        expected_ms = round(max(AT_LEAST_S, TIMES * seconds) * 1000)
        return min(expected_ms + self.budget.lock_timeout_ms, self._longest_ms)

    def why(self, statement: Statement, error: Exception, took_s: float) -> str:
        """What a statement has met that was stopped at its limit; empty for any other."""
        limit_ms, seconds = self.limit_ms(statement), self._seconds(statement)
        # Whoever cancels it by hand leaves the same SQLSTATE, and some of its time.
        canceled = isinstance(error, asyncpg.QueryCanceledError) and took_s * 1000 >= limit_ms
        if seconds is None or not canceled:
            return ""
        return (
            f"was stopped after {limit_ms / 1000:.1f} s: on the clone it took {seconds:.2f} s. "
            "Most likely it rewrites or reads a table here, and did not there; or it waited for "
            "rows that others work on. Nothing of its transaction stays. Look at what is not as in "
            "the snapshot (a default, the rows, the load) and run the deploy again, which "
            "rehearses on a new one. Where it may take so long: SET LOCAL statement_timeout in the "
            "migration."
        )

    @property
    def _longest_ms(self) -> int:
        return round(self.budget.statement_timeout_s * 1000)

    def _seconds(self, statement: Statement) -> float | None:
        return self.seconds.get((statement.line, statement.summary))


def has_own_limit(segments: Iterable[Segment]) -> bool:
    """Whether a migration says itself how long its statements may take."""
    statements = (each for segment in segments for each in segment.statements)
    return any(each.node.get("name") == "statement_timeout" for each in statements)
