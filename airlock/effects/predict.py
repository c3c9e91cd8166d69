"""What statements will do, from the syntax tree and what is known of the relations."""

from __future__ import annotations

from collections.abc import Iterable

from airlock.effects import statements as rules
from airlock.effects.effect import Prediction
from airlock.effects.segments import needs_no_transaction
from airlock.effects.touches import Touches
from airlock.effects.world import World
from airlock.syntax import Statement


def predict(statements: Iterable[Statement], world: World) -> tuple[Prediction, ...]:
    """What each statement will do, in order. The world is taken along: it is another afterwards."""
    found: list[Prediction] = []
    for statement in statements:
        found.append(predict_one(statement, world))
        world.apply(statement)
    return tuple(found)


def predict_one(statement: Statement, world: World) -> Prediction:
    """What one statement will do in this world, which stays as it is."""
    touches = Touches(world)
    rules.touch(statement.kind, statement.node, touches)
    return Prediction(
        statement=statement,
        effects=touches.effects(),
        new=tuple(touches.new),
        builds=tuple(touches.builds),
        drops=tuple(touches.drops),
        breaks=tuple(touches.breaks),
        transactional=not (touches.alone or needs_no_transaction(statement)),
        unknown="; ".join(dict.fromkeys(touches.unknown)),
    )
