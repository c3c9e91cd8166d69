"""Runs of a Prefect worker that are cancelled, killed or started again."""

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
from flows.runtime import Runtime, client, prefect_runtime
from tests.acceptance.test_deploys import assert_as_before
from tests.acceptance.test_recover import DROP, HANGS, sleeping, until
from tests.stage import Stage, Webhook, standing

PATIENCE_S = 90


@pytest.fixture
async def served(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Stage, Runtime, httpx.AsyncClient]]:
    """A stage whose migration 011 hangs in production, and a server with a worker for it."""
    async with standing(
        tmp_path / "project",
        pg=pg,
        base=base_009,
        repository=service_repository,
        webhook=webhook,
        patch=monkeypatch,
    ) as stage:
        stage.migration(11, "score", HANGS, DROP)
        async with (
            prefect_runtime(stage.root / ".airlock" / "prefect", port=0) as runtime,
            client(runtime.api_url) as http,
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


async def test_a_run_that_is_cancelled_in_the_ui_takes_production_back(served):
    stage, _, http = served
    before = await stage.world()
    run = await started(http, "deploy/prod", release="v2")
    await sleeping(stage)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    (await http.post(f"/flow_runs/{run}/set_state", json=cancelling)).raise_for_status()
    state = await ended(http, run)
    print(state)
    last = await until(stage, lambda row: row.state == "rolled_back")
    print(last.failure)
    await assert_as_before(stage, before)
    # again
    await asyncio.sleep(3)
    print(await state_of(http, run))
    runs = (await http.post("/flow_runs/filter", json={})).json()
    for r in runs:
        print(r["name"], r["state"]["name"], r["state"]["message"], r["start_time"], r["end_time"])
    dep = (await http.get("/deployments/name/recover/all")).json()
    print(dep["schedules"])


async def test_a_killed_run_is_taken_back_without_anybody(served):
    stage, runtime, http = served
    before = await stage.world()
    run = await started(http, "deploy/prod", release="v2")
    await sleeping(stage)
    process_of(await stage.last()).kill()
    state = await ended(http, run)
    print(state)
    last = await until(stage, lambda row: row.state == "rolled_back")
    print(last.failure)
    await assert_as_before(stage, before)
    await asyncio.sleep(5)
    runs = (await http.post("/flow_runs/filter", json={})).json()
    for r in runs:
        print(r["name"], r["state"]["name"], r["state"]["message"], r["start_time"], r["end_time"])
    dep = (await http.get("/deployments/name/recover/all")).json()
    print(dep["schedules"])
