"""Airlock's events on a real Prefect server, through its own automations to a real receiver."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect import flow

from airlock import deploy as steps
from airlock.request import DeployRequest
from flows import automations
from flows.deploy import deploy
from flows.runtime import Runtime
from tasks.send_alert import emit, send_alert
from tests.patience import until
from tests.receiver import Receiver, receiving
from tests.unit.test_alert import make


@pytest.fixture
async def http(prefect_server: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server; automations and block are gone afterwards."""
    async with prefect_server.client() as found:
        yield found
        for each in await every(found):
            await found.delete(f"/automations/{each['id']}")
        named = {"block_documents": {"name": {"any_": [automations.BLOCK]}}}
        for each in (await found.post("/block_documents/filter", json=named)).json():
            await found.delete(f"/block_documents/{each['id']}")


async def there(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Those that tell people."""
    of_runs = (automations.RECOVER, automations.SILENT)
    return [each for each in await every(http) if each["name"] not in of_runs]


async def every(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await http.post("/automations/filter", json={})).raise_for_status().json()


async def make_block(http: httpx.AsyncClient, slug: str, data: dict[str, Any]) -> None:
    """As somebody makes one in the UI."""
    kind = (await http.get(f"/block_types/slug/{slug}")).raise_for_status().json()
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    (schema, *_) = (await http.post("/block_schemas/filter", json=wanted)).json()
    body = {
        "name": automations.BLOCK,
        "data": data,
        "block_type_id": kind["id"],
        "block_schema_id": schema["id"],
    }
    (await http.post("/block_documents/", json=body)).raise_for_status()


async def notify_block(http: httpx.AsyncClient, receiver: Receiver) -> None:
    data = {
        "name": "local",
        "url": receiver.url,
        "json_data": {"subject": "{{subject}}", "body": "{{body}}"},
    }
    await make_block(http, "custom-webhook", data)


@flow(name=f"sends-{uuid.uuid4().hex[:8]}")
async def sends() -> tuple[str, ...]:
    return await send_alert("prod")


async def test_without_a_block_they_are_there_and_off_and_say_how_to_switch_them_on(http):
    for _ in range(2):
        await automations.apply(http)
    found = await there(http)
    names = {each.name for each in automations.AUTOMATIONS}
    assert {each["name"] for each in found} == names
    for each in found:
        assert not each["enabled"]
        assert automations.BLOCK in each["description"]


async def test_dead_runs_are_looked_after_as_soon_as_recover_is_published(http):
    await automations.apply(http)
    found = {each["name"]: each for each in await every(http)}
    assert found[automations.SILENT]["enabled"]
    assert not found[automations.RECOVER]["enabled"]
    assert "recover/all" in found[automations.RECOVER]["description"]

    flow_id = (await http.post("/flows/", json={"name": "recover"})).json()["id"]
    made = await http.post("/deployments/", json={"name": "all", "flow_id": flow_id})
    try:
        await automations.apply(http)
        found = {each["name"]: each for each in await every(http)}
        assert found[automations.RECOVER]["enabled"]
        (action,) = found[automations.RECOVER]["actions"]
        assert action["deployment_id"] == made.raise_for_status().json()["id"]
    finally:
        await http.delete(f"/deployments/{made.json()['id']}")


async def test_a_run_without_a_sign_of_life_has_crashed_and_one_that_ended_has_not(
    http, monkeypatch
):
    monkeypatch.setattr(automations, "SILENT_S", 10)  # Prefect's shortest
    await automations.apply(http)
    flow_id = (await http.post("/flows/", json={"name": "deploy"})).json()["id"]
    begun = {"flow_id": flow_id, "state": {"type": "RUNNING"}}
    silent, over = [
        (await http.post("/flow_runs/", json=begun)).raise_for_status().json()["id"]
        for _ in range(2)
    ]
    for run in (silent, over):
        await emit_of_run(http, run, flow_id, "heartbeat")
    await asyncio.sleep(1)  # Prefect keeps no order of what comes at one moment
    await emit_of_run(http, over, flow_id, "Deployed")

    async def has_crashed() -> bool:
        return await kind_of(http, silent) == "CRASHED"

    await until(has_crashed, every_s=0.2)
    assert await kind_of(http, over) == "RUNNING"


async def emit_of_run(http: httpx.AsyncClient, run: str, flow_id: str, what: str) -> None:
    """As Prefect's engine does while a flow runs."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": f"prefect.flow-run.{what}",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [
            {
                "prefect.resource.id": f"prefect.flow.{flow_id}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": "deploy",
            }
        ],
    }
    (await http.post("/events", json=[event])).raise_for_status()


async def kind_of(http: httpx.AsyncClient, run: str) -> str:
    return (await http.get(f"/flow_runs/{run}")).raise_for_status().json()["state"]["type"]


async def test_a_block_switches_them_on_and_a_person_off(http):
    await automations.apply(http)
    await make_block(http, "slack-webhook", {"url": "https://hooks.slack.com/services/A/B/C"})
    await automations.apply(http)
    found = await there(http)
    assert [each["enabled"] for each in found] == [True] * 3
    assert automations.BLOCK not in found[0]["description"]
    await http.patch(f"/automations/{found[0]['id']}", json={"enabled": False})
    await automations.apply(http)
    assert {each["id"]: each["enabled"] for each in await there(http)} == {
        found[0]["id"]: False,
        found[1]["id"]: True,
        found[2]["id"]: True,
    }


async def test_a_block_of_that_name_that_cannot_notify_is_not_taken(http):
    await make_block(http, "secret", {"value": "x"})
    await automations.apply(http)
    assert [each["enabled"] for each in await there(http)] == [False] * 3


async def test_a_rollback_and_its_end_reach_the_block_and_another_good_deploy_does_not(
    http, database, tmp_path, monkeypatch
):
    project(tmp_path, monkeypatch, database.url)
    async with receiving() as receiver:
        await notify_block(http, receiver)
        await automations.apply(http)
        emit(make(state="succeeded", headline="DEPLOYED – prod"))
        await rolled_back()
        assert await sends() == ()  # no channel of ours
        await until_received(receiver, 2)
        emit(make(state="succeeded", headline="DEPLOYED – prod", resolves=True))
        await until_received(receiver, 3)
        await asyncio.sleep(0.3)
    *both, over = receiver.bodies
    # Both at the same moment here: Prefect keeps no order then.
    told, begins = sorted(both, key=lambda body: body["subject"])
    assert begins["subject"].startswith("ROLLING BACK – ")
    assert over["subject"] == "RESOLVED – DEPLOYED – prod"
    headline = "ROLLED BACK – schema back on an empty schema (prod)"
    assert told["subject"] == headline
    assert told["body"].startswith(f"{headline}\nTarget: prod, ")
    assert "Error: it is wrong" in told["body"]


async def test_channels_are_told_though_no_event_can_be_emitted(database, tmp_path, monkeypatch):
    project(tmp_path, monkeypatch, database.url)
    monkeypatch.setattr("tasks.send_alert.emit", lambda alert: 1 / 0)
    monkeypatch.setattr("tasks.send_alert.get_run_logger", logging.getLogger)
    async with receiving() as receiver:
        with (tmp_path / "airlock.toml").open("a") as file:
            file.write('[targets.prod.alerts]\nslack_url_env = "SLACK_URL"\n')
        monkeypatch.setenv("SLACK_URL", receiver.url)
        await rolled_back()
        await send_alert.fn("prod")
    assert len(receiver.bodies) == 2


async def test_a_deploy_with_nothing_left_to_do_tells_that_a_refusal_is_over(
    database, tmp_path, monkeypatch
):
    project(tmp_path, monkeypatch, database.url)
    async with receiving() as receiver:
        with (tmp_path / "airlock.toml").open("a") as file:
            file.write('[targets.prod.alerts]\nwebhook_url_env = "HOOK_URL"\n')
        monkeypatch.setenv("HOOK_URL", receiver.url)
        lease = await steps.open_deploy(DeployRequest(target="prod"))
        assert lease is not None
        await steps.fail(lease, "it is wrong")
        (tmp_path / "migrations" / "001_step.sql").unlink()
        assert (await deploy(target="prod", return_state=True)).name == "NothingToDo"
    assert [body["event"] for body in receiver.bodies] == [
        "airlock.deploy.failed",
        "airlock.deploy.withdrawn",
    ]


async def until_received(receiver: Receiver, count: int) -> None:
    await until(lambda: len(receiver.received) >= count)


def project(root: Any, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    (root / "migrations").mkdir()
    (root / "migrations" / "001_step.sql").write_text(
        "-- Migration 001: step\n-- Purpose: a test\n-- Author: tests\n-- Date: 2026-01-01\n\n"
        "CREATE TABLE a (id int);\n\n-- ROLLBACK NOTES\n-- DROP TABLE a;\n"
    )
    (root / "airlock.toml").write_text('[targets.prod]\ndatabase_url_env = "PROD_URL"\n')
    monkeypatch.setenv("AIRLOCK_CONFIG", str(root / "airlock.toml"))
    monkeypatch.setenv("PROD_URL", url)


async def rolled_back() -> None:
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.roll_back(lease, "it is wrong")
