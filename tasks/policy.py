"""When a task may be tried again: the error decides, the task says how often."""

from __future__ import annotations

from typing import Any

from airlock.errors import Transient


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether the attempt failed with nothing changed; Prefect's ``retry_condition_fn``."""
    del task, task_run
    return isinstance(state.data, Transient)
