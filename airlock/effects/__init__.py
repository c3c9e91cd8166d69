"""What a statement does to the database: locks, rewrites, scans, rows.

One type for what is predicted from the syntax tree and what is measured on the clone.
"""

from airlock.effects import render
from airlock.effects.effect import Effect, LockMode, Prediction, StatementEffects
from airlock.effects.predict import predict, predict_one
from airlock.effects.segments import Segment, needs_no_transaction, segments
from airlock.effects.world import Column, Index, Relation, World

__all__ = [
    "Column",
    "Effect",
    "Index",
    "LockMode",
    "Prediction",
    "Relation",
    "Segment",
    "StatementEffects",
    "World",
    "needs_no_transaction",
    "predict",
    "predict_one",
    "render",
    "segments",
]
