"""What tasks have in common: when one may be tried again, and what its artifact is called."""

from __future__ import annotations

from typing import Any

from airlock.errors import Transient

# A backfill may take days. What hangs is noticed earlier: each of its calls has a time of its own.
BACKFILL_S = 7 * 24 * 3600


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether the attempt failed with nothing changed; Prefect's ``retry_condition_fn``."""
    del task, task_run
    return isinstance(state.data, Transient)


def artifact_key(kind: str, target: str) -> str:
    """Such as ``deploy-prod``: the same for each run, in letters that Prefect admits."""
    return f"{kind}-{target.lower().replace('_', '-')}"
