"""What a run leaves on the Prefect server for people to read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from prefect import flow, get_client
from prefect.artifacts import Artifact

from airlock import deploy as steps
from airlock import settings
from airlock.ledger import Lease
from airlock.request import DeployRequest
from tasks.write_history import write_history
from tasks.write_metrics import write_metrics
from tasks.write_report import write_report
from tests.conftest import Database

TOML = """
[targets.Prod_1]
database_url_env = "PROD_URL"
[targets.Prod_1.snapshot]
provider = "logical"
jobs = 1
[targets.Prod_1.clone]
dev_url_env = "DEV_URL"
[targets.Prod_1.metrics]
file = "airlock.prom"
"""
MIGRATION = """-- Migration 001: first
-- Purpose: a test
-- Author: tests
-- Date: 2026-01-01

CREATE TABLE a (id int);

-- ROLLBACK NOTES
-- DROP TABLE a;
"""


@pytest.fixture
def root(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_first.sql").write_text(MIGRATION, encoding="utf-8")
    (tmp_path / "airlock.toml").write_text(TOML, encoding="utf-8")
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / "airlock.toml"))
    monkeypatch.setenv("PROD_URL", database.url)
    monkeypatch.setenv("DEV_URL", database.server.url())
    return tmp_path


@flow
async def leaves(lease: Lease) -> None:
    await write_report(lease)
    await write_history(lease.target)
    await write_metrics(lease)


async def kept(key: str) -> Artifact:
    async with get_client() as client:
        found = await Artifact.get(key, client=client)
    assert found is not None, key
    return found


def pictures(markdown: object) -> list[str]:
    """The words in each picture that the markdown holds."""
    found: list[str] = []
    for part in str(markdown).split("](data:image/svg+xml;base64,")[1:]:
        svg = base64.b64decode(part.partition(")")[0], validate=True)
        found.append(" ".join(ElementTree.fromstring(svg).itertext()))  # noqa: S314 – ours
    return found


async def test_a_run_leaves_its_report_its_effects_and_the_history(root: Path) -> None:
    lease = await steps.open_deploy(DeployRequest(target="Prod_1", requester="Ada"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    await steps.apply_plan(lease)
    await steps.verify_schema(lease)
    await steps.succeed(lease)
    await leaves(lease)

    summary = await kept("deploy-prod-1")
    assert str(summary.data).startswith("# DEPLOYED – Prod_1 stands at 001\n")
    (timeline,) = pictures(summary.data)
    for step in ("take_snapshot", "rehearse", "apply_plan", "verify_schema"):
        assert step in timeline
    assert "- ☑ Tested on dev database" in str(summary.data)
    assert summary.description == "DEPLOYED – Prod_1 stands at 001"

    table = (await kept("migrations-prod-1")).data
    (row,) = json.loads(table) if isinstance(table, str) else table
    assert (row["migration"], row["state"]) == ("001_first", "applied")
    assert row["statement"] == "CREATE TABLE a (id int)"
    assert row["ms on the clone"] > 0

    history = await kept("history-prod-1")
    assert "| Change failure rate | 0% | 0 of 1 were rolled back" in str(history.data)
    assert len(pictures(history.data)) == 1
    assert history.description is not None
    assert history.description.startswith("deploy frequency 1.0 per week")

    numbers = (root / "airlock.prom").read_text(encoding="utf-8")
    assert 'airlock_deploys{state="succeeded",target="Prod_1"} 1.0\n' in numbers
