"""Whole deploys: a stage of its own for each test, and the flow that is run on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airlock import server
from tests.stage import Stage, Webhook, receiving, standing


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    async with receiving() as found:
        yield found


@pytest.fixture
async def stage(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Production at 009, release v1 serving."""
    async with standing(
        tmp_path / "project",
        pg=pg,
        base=base_009,
        repository=service_repository,
        webhook=webhook,
        patch=monkeypatch,
    ) as made:
        yield made


Deploy = Callable[..., Awaitable[Any]]


@pytest.fixture
def run_deploy(stage: Stage, flows_report_to_the_server: None) -> Deploy:
    """Run the real flow against the real Prefect server; its final state."""
    del stage, flows_report_to_the_server

    async def run(**parameters: Any) -> Any:
        from flows.deploy import deploy

        given: Mapping[str, Any] = {"target": "prod", "requester": "a test", **parameters}
        return await deploy(**given, return_state=True)

    return run
