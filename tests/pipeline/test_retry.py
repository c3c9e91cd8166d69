"""Prefect's Retry starts an old run again with its old parameters: what came since stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import get_client
from prefect.flow_engine import run_flow_async

from airlock import deploy as steps
from airlock import ledger, lock, settings
from airlock.request import DeployRequest
from flows.deploy import deploy
from flows.recover import recover
from flows.refresh_staging import refresh_staging
from flows.rollback import rollback
from flows.runtime import Runtime
from tests.conftest import Database
from tests.people import connect

TOML = """
[targets.prod]
database_url_env = "PROD_DATABASE_URL"
[targets.prod.clone]
dev_url_env = "PROD_DEV_URL"
[targets.prod.refresh]
source = "other"
key_env = "MASK_KEY"
[targets.other]
database_url_env = "PROD_DATABASE_URL"
"""
FLOWS = {"deploy": deploy, "rollback": rollback, "refresh-staging": refresh_staging}
REFUSED = "Start a new one"


@dataclass(slots=True, kw_only=True)
class Prod:
    """A small database, and the runs on it."""

    root: Path
    http: httpx.AsyncClient

    def migration(self, number: int, forward: str = "CREATE TABLE {} (id int);") -> None:
        name = f"t{number}"
        text = f"-- Purpose: a test\n{forward.format(name)}\n"
        text += f"-- ROLLBACK NOTES\n-- DROP TABLE {name};\n"
        (self.root / "migrations" / f"{number:03d}_{name}.sql").write_text(text)

    async def start(self, name: str = "deploy", **given: Any) -> tuple[str, Any]:
        """A new run, and how it ended."""
        flow = (await self.http.post("/flows/", json={"name": name})).raise_for_status().json()
        made = {
            "flow_id": flow["id"],
            "parameters": {"target": "prod", **given},
            "state": {"type": "PENDING"},
        }
        run = (await self.http.post("/flow_runs/", json=made)).raise_for_status().json()["id"]
        return run, await self.play(run, name)

    async def retry(self, run: str, name: str = "deploy") -> Any:
        """As the button of the UI does; how it ended."""
        wanted = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        await self.http.post(f"/flow_runs/{run}/set_state", json=wanted)
        return await self.play(run, name)

    async def play(self, run: str, name: str) -> Any:
        async with get_client() as prefect:
            found = await prefect.read_flow_run(UUID(run))
        return await run_flow_async(
            FLOWS[name], flow_run=found, parameters=found.parameters, return_type="state"
        )

    async def last(self) -> ledger.Deploy:
        async with ledger.connection(settings.target("prod")) as conn:
            found = await ledger.last(conn)
        assert found is not None
        return found

    async def refused(self, *, before_it_opens: bool, **given: Any) -> str:
        """A run that does not come to production, what kept it from that then gone."""
        if before_it_opens:
            async with lock.hold(settings.target("prod")):
                run, state = await self.start(**given)
        else:
            self.migration(1, "CREATE TABLE t1 (id int); SELECT 1/0;")
            run, state = await self.start(**given)
            self.migration(1)
        assert state.name == "Refused", state.message
        return run

    async def deployed(self) -> str:
        run, state = await self.start()
        assert state.name == "Deployed", state.message
        return run


@pytest.fixture
async def prod(
    database: Database,
    prefect_server: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Prod]:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "airlock.toml").write_text(TOML)
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / "airlock.toml"))
    monkeypatch.setenv("PROD_DATABASE_URL", database.url)
    monkeypatch.setenv("PROD_DEV_URL", database.server.url())
    monkeypatch.setenv("MASK_KEY", "k" * 64)
    async with prefect_server.client() as http:
        made = Prod(root=tmp_path, http=http)
        made.migration(1)
        yield made


@pytest.mark.parametrize("before_it_opens", [True, False])
async def test_an_old_request_is_not_done_over_a_newer_deploy(prod: Prod, before_it_opens: bool):
    old = await prod.refused(before_it_opens=before_it_opens)
    await prod.deployed()
    newer = await prod.last()
    prod.migration(2)
    state = await prod.retry(old)
    assert (state.name, REFUSED in state.message) == ("Refused", True), state.message
    assert f"deploy {newer.id} " in state.message
    assert await prod.last() == newer


async def test_a_rollback_that_is_retried_does_not_undo_what_was_deployed_since(prod: Prod):
    await prod.deployed()
    undone, state = await prod.start("rollback")
    assert state.name == "UndoneByHand", state.message
    await prod.deployed()
    newer = await prod.last()
    state = await prod.retry(undone, "rollback")
    assert (state.name, REFUSED in state.message) == ("Refused", True), state.message
    assert await prod.last() == newer


@pytest.mark.parametrize("name", ["rollback", "refresh-staging"])
async def test_what_opened_nothing_before_a_newer_deploy_is_not_done_after_it(
    prod: Prod, name: str
):
    old = await prod.refused(before_it_opens=True, name=name)
    await prod.deployed()
    newer = await prod.last()
    state = await prod.retry(old, name)
    assert (state.name, REFUSED in state.message) == ("Refused", True), state.message
    assert await prod.last() == newer


async def test_the_last_run_is_retried_as_often_as_somebody_likes(prod: Prod):
    run = await prod.refused(before_it_opens=False)
    assert (await prod.retry(run)).name == "Deployed"
    prod.migration(2)
    assert (await prod.retry(run)).name == "Deployed"
    assert (await prod.retry(run)).name == "NothingToDo"


async def test_a_run_that_came_after_the_last_deploy_and_opened_none_is_retried(prod: Prod):
    await prod.deployed()
    prod.migration(2)
    run = await prod.refused(before_it_opens=True)
    assert (await prod.retry(run)).name == "Deployed"


async def test_a_run_whose_deploy_was_recovered_by_another_is_still_the_last_one(prod: Prod):
    run = await prod.refused(before_it_opens=True)
    lease = await steps.open_deploy(DeployRequest(target="prod"), flow_run=run)
    assert lease is not None
    async with connect(settings.target("prod").database_url) as conn:
        await conn.execute("UPDATE airlock.deploy SET heartbeat_at = now() - interval '1 min'")
    state = await recover("prod", return_state=True)
    assert state.name == "Recovered", state.message
    assert (await prod.last()).flow_run != run
    assert (await prod.retry(run)).name == "Deployed"
