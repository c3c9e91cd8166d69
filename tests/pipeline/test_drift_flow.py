"""The nightly drift flow on a real Prefect server: artifact and alert for each target."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from airlock import ledger, settings
from airlock.introspection import read_catalogue
from airlock.plan import Plan
from airlock.request import DeployRequest
from flows.drift import drift
from tests.conftest import Database
from tests.people import connect
from tests.stage import Webhook, receiving

CONFIG = """
[targets.away]
database_url_env = "AWAY_URL"
[targets.prod]
database_url_env = "PROD_URL"
[targets.prod.alerts]
slack_url_env = "PROD_SLACK_URL"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Two targets, of which only prod can be reached: one deploy left one table there."""

    url: str
    webhook: Webhook

    async def execute(self, sql: str) -> None:
        async with connect(self.url) as conn:
            await conn.execute(sql)


@pytest.fixture
async def site(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "airlock.toml").write_text(CONFIG, encoding="utf-8")
    async with receiving() as webhook:
        monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / "airlock.toml"))
        monkeypatch.setenv("PROD_URL", database.url)
        monkeypatch.setenv("AWAY_URL", "postgresql://owner:hidden@127.0.0.1:1/away")
        monkeypatch.setenv("PROD_SLACK_URL", webhook.url)
        made = Site(url=database.url, webhook=webhook)
        await made.execute("CREATE TABLE deals (id int)")
        await a_deploy_ends(made.url)
        yield made


async def a_deploy_ends(url: str) -> None:
    async with connect(url) as conn:
        await ledger.ensure(conn)
        schema = await ledger.save_catalogue(conn, await read_catalogue(conn))
        plan = Plan(target="prod", head=None, migrations=(), schema_before=schema)
        lease = await ledger.begin(conn, DeployRequest(target="prod"), plan)
        await ledger.advance(conn, lease, "succeeded", schema_after=schema)


async def artifact(target: str) -> str:
    """The newest one about a target's drift."""
    only = ArtifactFilter(key=ArtifactFilterKey(any_=[f"drift-{target}"]))
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=only, limit=1, sort="CREATED_DESC")
    return str(found[0].data)


async def run(**parameters: Any) -> Any:
    return await drift(**parameters, return_state=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is out of reach is asked again without the pauses between."""
    from tasks.detect_drift import detect_drift

    monkeypatch.setattr(detect_drift, "retry_delay_seconds", [0, 0])


async def test_a_drift_is_an_artifact_and_an_alert_and_its_end_as_well(site: Site) -> None:
    state = await run(target="prod")
    assert (state.name, state.is_completed()) == ("NoDrift", True)
    assert (await artifact("prod")).startswith("# NO DRIFT – prod")
    assert site.webhook.bodies == []

    await site.execute("ALTER TABLE deals ADD COLUMN by_hand text")
    for _ in range(2):
        state = await run(target="prod")
        assert (state.name, state.is_failed()) == ("Drifted", True)
        assert state.message == "DRIFT – prod differs from deploy 1: 1 object"
    text = await artifact("prod")
    assert "```diff\n+ column public.deals.by_hand" in text
    (told,) = site.webhook.bodies
    assert told["text"].startswith("*DRIFT – prod differs from deploy 1: 1 object*")
    assert "public.deals.by_hand" in told["text"]

    await site.execute("ALTER TABLE deals DROP COLUMN by_hand")
    assert (await run(target="prod")).name == "NoDrift"
    assert "DRIFT GONE – prod" in site.webhook.bodies[-1]["text"]
    assert len(site.webhook.bodies) == 2


async def test_a_target_out_of_reach_is_said_and_does_not_keep_the_others_from_being_looked_at(
    site: Site,
) -> None:
    state = await run()
    assert (state.name, state.is_failed()) == ("NotCompared", True)
    assert "NOT COMPARED – away" in state.message
    assert "NO DRIFT – prod" in state.message
    assert (await artifact("away")).startswith("# NOT COMPARED – away")
    assert "hidden" not in await artifact("away")
    await site.execute("DROP TABLE deals")
    assert (await run()).name == "Drifted"


async def test_a_target_that_is_not_in_airlock_toml_is_refused(site: Site) -> None:
    state = await run(target="prdo")
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert "'prdo'" in state.message
