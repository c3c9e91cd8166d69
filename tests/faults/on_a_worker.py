"""Runs of a Prefect worker that are cancelled, killed or started again.

A minute long, so `make faults` runs it, and `make test` does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airlock import server
from airlock.ledger import Deploy
from flows.automations import DEPLOYMENT
from flows.runtime import Runtime, prefect_runtime
from tests.acceptance.test_deploys import assert_as_before
from tests.acceptance.test_recover import DROP, HANGS, sleeping, until
from tests.stage import Stage, receiving, standing

# The automation takes seconds; where its event is lost, the schedule comes within a minute.
PATIENCE_S = 150


@pytest.fixture
async def served(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Stage, Runtime, httpx.AsyncClient]]:
    """A stage whose migration 011 hangs in production, and a server with a worker for it."""
    async with (
        receiving() as webhook,
        standing(
            tmp_path / "project",
            pg=pg,
            base=base_009,
            repository=service_repository,
            webhook=webhook,
            patch=monkeypatch,
        ) as stage,
    ):
        stage.migration(11, "score", HANGS, DROP)
        async with (
            prefect_runtime(stage.root / ".airlock" / "prefect", port=0) as runtime,
            runtime.client() as http,
        ):
            yield stage, runtime, http


async def started(http: httpx.AsyncClient, name: str, **parameters: Any) -> str:
    found = (await http.get(f"/deployments/name/{name}")).raise_for_status().json()
    answer = await http.post(
        f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters}
    )
    return answer.raise_for_status().json()["id"]


async def state_of(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    return (await http.get(f"/flow_runs/{run}")).raise_for_status().json()["state"]


async def ended(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            state = await state_of(http, run)
            if state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                return state
            await asyncio.sleep(0.2)


def process_of(row: Deploy) -> psutil.Process:
    return psutil.Process(int(row.holder.split(":")[1]))


async def test_cancelled_started_again_and_killed_it_is_taken_back_each_time(served):
    stage, runtime, http = served
    before = await stage.world()
    run = await started(http, "deploy/prod", release="v2")
    await sleeping(stage)
    await set_state(http, run, "CANCELLING", "Cancelling")
    state = await ended(http, run)
    assert (state["type"], state["name"]) == ("CANCELLED", "RolledBack")
    assert "The run was asked to end (" in state["message"]
    assert (await stage.last()).state == "rolled_back"
    await assert_as_before(stage, before)
    first = await stage.last()

    # Whoever is quicker than the worker has their next run cancelled, too.
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if "Cancelled flow run" in (runtime.state_dir / "worker.log").read_text("utf-8"):
                break
            await asyncio.sleep(0.1)
    # Retry: nothing is open, so it is a deploy of its own.
    await set_state(http, run, "SCHEDULED", "AwaitingRetry")
    await sleeping(stage)
    process_of(await stage.last()).kill()
    last = await until(
        stage, lambda row: row.id > first.id and row.state == "rolled_back", patience_s=PATIENCE_S
    )
    assert last.failure is not None
    assert "1 of its 2 migrations are there as a whole, so it goes back" in last.failure
    assert (await ended(http, run))["type"] == "CRASHED"
    await assert_as_before(stage, before)

    # Nobody asked for it, and nothing is open any more.
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if "Recovered" in await names_of(http, "recover"):
                break
            await asyncio.sleep(0.2)
    found = (await http.get(f"/deployments/name/{DEPLOYMENT}")).raise_for_status().json()
    assert [each["active"] for each in found["schedules"]] == [False]


async def set_state(http: httpx.AsyncClient, run: str, kind: str, name: str) -> None:
    """As the buttons of the UI do."""
    wanted = {"state": {"type": kind, "name": name}}
    answer = await http.post(f"/flow_runs/{run}/set_state", json=wanted)
    assert answer.raise_for_status().json()["status"] == "ACCEPT", answer.text


async def names_of(http: httpx.AsyncClient, flow: str) -> set[str]:
    """What the states of a flow's runs are called."""
    wanted = {"flows": {"name": {"any_": [flow]}}}
    found = (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()
    return {each["state"]["name"] for each in found}
