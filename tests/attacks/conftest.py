"""The suite's sample of the attacks."""

from __future__ import annotations

import pytest

FOLDER = "attacks"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whoever names this folder or a file of it gets all of them."""
    if any(FOLDER in argument for argument in config.args):
        return
    left_out = [item for item in items if _only_in_the_whole_run(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _only_in_the_whole_run(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("attack")
    return mark is not None and not mark.kwargs.get("sample", False)
