"""Predictions for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airlock.effects.effect import Effect, Prediction


def as_data(predictions: Iterable[Prediction]) -> list[dict[str, object]]:
    """What ``airlock effects --json`` prints; None where nobody can know."""
    return [
        {
            "line": each.statement.line,
            "statement": each.statement.text,
            "effects": [
                {
                    "relation": effect.relation,
                    "lock": effect.lock.pg_name if effect.lock is not None else None,
                    "rewrites": effect.rewrites,
                    "scans": effect.scans,
                }
                for effect in each.effects
            ],
        }
        for each in predictions
    ]


def as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Line by line, one statement after the other."""
    for each in predictions:
        yield f"{each.statement.line:>5}  {each.statement.summary}"
        for effect in each.effects:
            if effect.relation is not None:
                yield f"         {effect.relation}: {sentence(effect)}"
        if each.new:
            yield f"         new here, so nobody waits: {', '.join(each.new)}"
        for what in each.drops:
            yield f"         loses {what}"
        for what in each.breaks:
            yield f"         breaks code: {what}"
        if not each.transactional:
            yield "         runs outside a transaction"
        if each.unknown:
            yield f"         unknown: {each.unknown}"
        if not (each.effects or each.new or each.unknown):
            yield "         locks nothing that was there before"


def sentence(effect: Effect) -> str:
    """Such as ``AccessExclusiveLock (blocks reads and writes), rewritten``."""
    blocks = ""
    if effect.blocks_reads:
        blocks = " (blocks reads and writes)"
    elif effect.blocks_writes:
        blocks = " (blocks writes)"
    parts = [effect.lock_name + blocks]
    if effect.rewrites is not False:
        parts.append("rewritten" if effect.rewrites else "perhaps rewritten")
    if effect.scans is not False:
        parts.append("read as a whole" if effect.scans else "perhaps read as a whole")
    return ", ".join(parts)
