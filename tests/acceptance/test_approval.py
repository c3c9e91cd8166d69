"""Deploys that wait for a person: what each answer leads to, with production compared."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.flow_engine import run_flow_async

from airlock import deploy as steps
from airlock import ledger, lock, record, settings
from airlock.approval import Approval
from airlock.contents import read_contents
from airlock.errors import Refused, Transient
from airlock.introspection import read_catalogue
from airlock.request import DeployRequest
from flows import runtime
from flows.runtime import Runtime
from tests.gateway import Gateway
from tests.patience import PATIENCE_S
from tests.people import connect

TOML = """
[targets.prod]
database_url_env = "PROD_DATABASE_URL"
[targets.prod.clone]
dev_url_env = "PROD_DEV_URL"
[targets.prod.approval]
policy = "lossy-or-blocking"
timeout_s = {timeout_s}
"""
INDEX = """-- Purpose: deals are found by their name
CREATE INDEX deals_name ON deals (name);
-- ROLLBACK NOTES
-- DROP INDEX deals_name;
"""
MORE = INDEX.replace("deals_name", "deals_name_again")
COMMENT = """-- Purpose: a comment keeps nobody waiting
COMMENT ON COLUMN deals.name IS 'as filed';
-- ROLLBACK NOTES
-- COMMENT ON COLUMN deals.name IS NULL;
"""


@dataclass(slots=True, kw_only=True)
class Production:
    """A small database, the runs on it, and the server that shows them."""

    superuser_url: str
    http: Any
    root: Any

    @property
    def target(self) -> settings.Target:
        return settings.target("prod")

    def waits_at_most(self, timeout_s: float) -> None:
        (self.root / "airlock.toml").write_text(TOML.format(timeout_s=timeout_s), encoding="utf-8")

    async def world(self) -> tuple[object, object]:
        async with connect(self.superuser_url) as conn:
            catalogue = await read_catalogue(conn)
            columns = {table: catalogue.columns(*table) for table in catalogue.stores}
            read = await read_contents(conn, columns, max_bytes=2**30)
        return catalogue.fingerprint, read.tables

    async def last(self) -> ledger.Deploy:
        async with ledger.connection(self.target) as conn:
            return (await ledger.recent(conn))[0]

    async def approval(self) -> Approval:
        row = await self.last()
        assert row.approval
        return record.load(Approval, row.approval)

    async def asked(self, *, after: Approval | None = None) -> ledger.Deploy:
        """The deploy, once its run shows the form; ``after`` an earlier question, the next one."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with ledger.connection(self.target) as conn:
                    rows = await ledger.recent(conn)
                if rows and rows[0].approval and rows[0].flow_run:
                    now = record.load(Approval, rows[0].approval)
                    is_new = after is None or now.schema_before != after.schema_before
                    if is_new and await self._form(rows[0].flow_run):
                        return rows[0]
                await asyncio.sleep(0.05)

    async def _form(self, run: str) -> str:
        """The description of the form that a paused run shows; empty before it does."""
        state = (await self.http.get(f"/flow_runs/{run}")).raise_for_status().json()["state"]
        keys = state["state_details"].get("run_input_keyset") or {}
        if state["type"] != "PAUSED":
            return ""
        answer = await self.http.get(f"/flow_runs/{run}/input/{keys['description']}")
        return answer.json() if answer.is_success else ""

    async def form(self) -> str:
        return await self._form((await self.asked()).flow_run or "")

    async def answer(self, **given: str) -> dict[str, Any]:
        """What the server says to the form as the UI sends it."""
        run = (await self.last()).flow_run
        sent = await self.http.post(f"/flow_runs/{run}/resume", json={"run_input": given})
        return sent.raise_for_status().json()


@pytest.fixture
async def production(database, prefect_server: Runtime, tmp_path, monkeypatch):
    async with connect(database.url) as conn:
        await conn.execute(
            "CREATE TABLE deals (id int PRIMARY KEY, name text);"
            "INSERT INTO deals SELECT n, 'deal ' || n FROM generate_series(1, 200) AS n"
        )
    root = tmp_path / "project"
    (root / "migrations").mkdir(parents=True)
    (root / "migrations" / "001_index.sql").write_text(INDEX, encoding="utf-8")
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(root / "airlock.toml"))
    monkeypatch.setenv("PROD_DATABASE_URL", database.url)
    monkeypatch.setenv("PROD_DEV_URL", database.server.url())
    monkeypatch.setattr("flows.approval.POLL_S", 0.1)
    async with prefect_server.client() as http:
        made = Production(superuser_url=database.superuser_url, http=http, root=root)
        made.waits_at_most(3600)
        yield made


@asynccontextmanager
async def deploying(**parameters):
    """The flow, running while the block does; its final state is the task's result."""
    from flows.deploy import deploy

    given = {"target": "prod", "requester": "Ada", "reason": "names", **parameters}
    running = asyncio.create_task(deploy(**given, return_state=True))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


pytestmark = pytest.mark.usefixtures("flows_report_to_the_server")


async def test_what_is_approved_on_the_command_line_is_applied_and_the_ledger_says_by_whom(
    production, prefect_server
):
    async with deploying() as running:
        asked = await production.asked()
        assert asked.headline.startswith("APPROVAL WANTED – prod 001")
        assert asked.run_url
        assert asked.flow_run in asked.run_url
        form = await production.form()
        for said in ("prod waits for your decision on 001", "ShareLock", "Snapshot", "exact"):
            assert said in form
        assert "rejects unless you choose approve" in form.partition("- ")[0]
        assert "[The whole rehearsal](http" in form
        keys = {"artifacts": {"key": {"any_": ["rehearsal-prod"]}}}
        shown = (await production.http.post("/artifacts/filter", json=keys)).json()
        assert any("## Checklist" in each["data"] for each in shown)
        assert all(each["data"].count("```diff") == 1 for each in shown)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "airlock", "approve", "prod", "--reason", "seen"),
            env={**os.environ, **prefect_server.environment, "AIRLOCK_REQUESTER": "Grace"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        state = await running
    assert state.name == "Deployed", state.message
    made = await production.approval()
    assert (made.decision, made.name, made.reason) == ("approved", "Grace", "seen")
    assert "ShareLock" in made.required_because
    assert made.schema_before == asked.schema_before
    async with connect(production.superuser_url) as conn:
        assert await conn.fetchval("SELECT to_regclass('deals_name') IS NOT NULL")
        phases = await conn.fetch(
            "SELECT phase FROM airlock.event WHERE step = 'approve' ORDER BY sequence"
        )
    assert [row["phase"] for row in phases] == ["intent", "done"]


async def test_what_was_not_said_is_a_rejection_and_leaves_production_as_it_was(production):
    before = await production.world()
    async with deploying() as running:
        await production.asked()
        await production.answer(name="Grace", reason="not on a Friday")
        state = await running
    assert (state.name, state.is_failed()) == ("Rejected", True)
    assert "Rejected by Grace: not on a Friday" in state.message
    row = await production.last()
    assert (row.state, row.failed_step) == ("failed", "approve")
    assert row.failure == "Rejected by Grace: not on a Friday"
    assert await production.world() == before
    async with connect(production.superuser_url) as conn:
        alerts = await conn.fetch("SELECT body->>'state' AS state, body::text FROM airlock.alert")
    assert [row["state"] for row in alerts] == ["approval_wanted", "turned_down"]
    assert "Rejected by Grace" in alerts[1]["body"]


async def test_nobody_s_decision_is_none_and_leaves_production_as_it_was(production):
    production.waits_at_most(1)
    before = await production.world()
    async with deploying() as running:
        state = await running
    assert (state.name, state.is_failed()) == ("Expired", True)
    row = await production.last()
    assert (row.state, row.failed_step) == ("failed", "approve")
    assert (row.failure or "").startswith("Nobody decided within ")
    assert (await production.approval()).decision == "expired"
    assert await production.world() == before


async def test_while_it_waits_bad_answers_are_not_taken_and_the_lock_is_free(production):
    bad = [
        {},
        {"decision": "approve"},
        {"decision": "approve", "name": "  "},
        {"decision": "approved", "name": "Grace"},
        {"decision": "approve", "name": "Grace", "reason": "x" * 501},
        {"decision": "approve", "name": "Grace", "target": "staging"},
    ]
    async with deploying() as running:
        await production.asked()
        for given in bad:
            assert (await production.answer(**given))["status"] == "REJECT", given
        assert (await production.approval()).decision is None
        async with lock.hold(production.target):
            pass
        from flows.deploy import deploy

        second = await deploy(target="prod", return_state=True)
        assert second.name == "Refused"
        assert "waits for a person's approval" in second.message
        assert "airlock approve prod" in second.message
        await production.answer(decision="reject", name="Grace")
        assert (await running).name == "Rejected"


async def test_a_schema_that_changed_meanwhile_is_rehearsed_and_asked_about_again(production):
    async with deploying() as running:
        await production.asked()
        first = await production.approval()
        async with connect(production.superuser_url) as conn:
            await conn.execute("ALTER TABLE deals ADD COLUMN by_hand int")
        taken = await production.answer(decision="approve", name="Grace")
        assert taken["status"] == "ACCEPT"
        await production.asked(after=first)
        form = await production.form()
        assert "production's schema changed while it waited" in form
        assert "column public.deals.by_hand" in form
        second = await production.approval()
        assert second.schema_before != first.schema_before
        await production.answer(decision="approve", name="Grace", reason="still good")
        state = await running
    assert state.name == "Deployed", state.message
    assert (await production.approval()).reason == "still good"
    async with connect(production.superuser_url) as conn:
        rehearsed = await conn.fetchval(
            "SELECT count(*) FROM airlock.event WHERE step = 'rehearse' AND phase = 'done'"
        )
    assert rehearsed == 2


async def test_a_rollback_by_hand_ends_the_waiting(production, monkeypatch):
    from flows.rollback import rollback

    monkeypatch.setattr("airlock.lock.HEARTBEAT_S", 0.1)
    async with deploying() as running:
        await production.asked()
        await rollback(target="prod", reason="not wanted", return_state=True)
        state = await asyncio.wait_for(running, PATIENCE_S)
    assert state.name == "TakenOver"
    assert "taken over" in state.message
    assert (await production.last()).state == "failed"


async def waiting(production, run: str) -> None:
    """A deploy that waits for a decision, and whose runner does nothing more."""
    lease = await steps.open_deploy(DeployRequest(target="prod", ask=True))
    assert lease is not None
    await steps.link_run(lease, run, None)
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)


async def test_a_prefect_server_that_is_away_for_a_while_ends_no_waiting(
    production, prefect_server
):
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with Gateway(prefect_server.api_url) as gate:
        there = replace(prefect_server, api_url=gate.api_url)
        with there.as_current(), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with deploying() as running:
                await production.asked()
                await gate.shut(1)
                assert not running.done()
                await production.answer(decision="approve", name="Grace", reason="back again")
                state = await running
            await runtime._send_what_is_left()  # while there is a way
    assert state.name == "Deployed", state.message
    assert (await production.approval()).reason == "back again"


async def test_a_run_that_is_started_again_asks_again(production):
    """Prefect would answer it with what was said in the run before."""
    from flows.deploy import deploy

    flow_id = (await production.http.post("/flows/", json={"name": "deploy"})).json()["id"]
    given = {"target": "prod", "requester": "Ada"}
    made = {"flow_id": flow_id, "parameters": given, "state": {"type": "PENDING"}}
    run = (await production.http.post("/flow_runs/", json=made)).raise_for_status().json()["id"]
    for decision, ends in (("approve", "Deployed"), ("reject", "Rejected")):
        async with get_client() as prefect:
            found = await prefect.read_flow_run(UUID(run))
        running = asyncio.create_task(
            run_flow_async(deploy, flow_run=found, parameters=given, return_type="state")
        )
        await production.asked()
        await production.answer(decision=decision, name="Grace")
        assert (await running).name == ends
        (production.root / "migrations" / "002_more.sql").write_text(MORE, encoding="utf-8")
        again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
        await production.http.post(f"/flow_runs/{run}/set_state", json=again)


async def test_an_answer_to_a_run_of_another_server_is_refused_in_words(production):
    from flows.approval import answer

    await waiting(production, str(uuid4()))
    with pytest.raises(Refused, match="another server's"):
        await answer("approve", "prod", "Grace", "")
    assert (await production.approval()).decision is None


async def test_a_runner_that_is_gone_is_asked_nothing_and_the_rollback_closes_its_run(production):
    from flows.approval import answer
    from flows.rollback import rollback

    flow = (await production.http.post("/flows/", json={"name": "deploy"})).json()
    left = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    run = (await production.http.post("/flow_runs/", json=left)).raise_for_status().json()["id"]
    await waiting(production, run)
    async with connect(production.superuser_url) as conn:
        await conn.execute("UPDATE airlock.deploy SET heartbeat_at = now() - interval '1 min'")
    with pytest.raises(Refused, match="airlock recover prod"):
        await answer("approve", "prod", "Grace", "")
    state = await rollback(target="prod", reason="cut off", return_state=True)
    assert state.name == "UndoneByHand", state.message
    ended = (await production.http.get(f"/flow_runs/{run}")).raise_for_status().json()
    assert ended["state"]["type"] == "CRASHED"


async def test_an_answer_that_nobody_acts_on_is_not_called_done(production, monkeypatch):
    from flows.approval import answer

    monkeypatch.setattr("flows.approval.POLL_S", 3600)
    monkeypatch.setattr("flows.approval.HEARD_S", 0)
    async with deploying():
        await production.asked()
        with pytest.raises(Transient, match="nobody acted on it"):
            await answer("approve", "prod", "Grace", "")


async def test_alerts_that_hang_change_neither_the_question_nor_the_outcome(
    production, monkeypatch
):
    from tasks.send_alert import send_alert

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("airlock.outbox.announce", hang)
    monkeypatch.setattr(send_alert, "timeout_seconds", 0.2)
    async with deploying() as running:
        await production.asked()
        await production.answer(decision="approve", name="Grace")
        state = await running
    assert state.name == "Deployed", state.message


async def test_a_plan_that_keeps_nobody_waiting_is_not_asked_about(production):
    (production.root / "migrations" / "001_index.sql").write_text(COMMENT, encoding="utf-8")
    async with deploying() as running:
        assert (await running).name == "Deployed"
    assert (await production.approval()).sentence == "not needed: policy lossy-or-blocking"
