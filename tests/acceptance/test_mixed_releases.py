"""Old code on the new schema, new code on the old one: seen on the clone, before production."""

from __future__ import annotations

import pytest

from airlock import deploy as steps
from airlock import ledger, server
from airlock.errors import Refused
from airlock.rehearsal import Rehearsal
from airlock.request import DeployRequest
from tests import own
from tests.stage import ADD_COLUMN, CONTRACT, Stage

RENAME = (
    "ALTER TABLE deals RENAME COLUMN announced_on TO announced_at;",
    "ALTER TABLE deals RENAME COLUMN announced_at TO announced_on;",
)


async def rehearse(stage: Stage, **request: object) -> Rehearsal:
    """Up to the rehearsal, without Prefect; nothing of it stays, and production is as it was."""
    stage.try_releases()
    before, served = await stage.world(), await stage.health()
    lease = await steps.open_deploy(DeployRequest.model_validate({"target": "prod"} | request))
    assert lease is not None
    await steps.prepare_release(lease)
    await steps.take_snapshot(lease)
    try:
        return await steps.rehearse(lease)
    finally:
        after = await stage.world()
        assert after.catalogue.fingerprint == before.catalogue.fingerprint
        assert after.contents.tables == before.contents.tables
        assert await stage.health() == served
        assert set(own.processes(stage.root)) == {served["pid"]}
        assert list(stage.target.clones_dir.iterdir()) == []
        assert (await stage.last()).state in ledger.UNTOUCHED


async def test_both_releases_are_started_on_the_schemas_that_they_meet(stage: Stage):
    stage.migration(11, "score", *ADD_COLUMN)
    found = (await rehearse(stage, release="v2")).releases
    assert found.not_tried == ""
    assert [(each.which, each.release, each.schema, each.verdict) for each in found.pairs] == [
        ("running", "v1", "after", "works"),
        ("new", "v2", "after", "works"),
        ("new", "v2", "before", "works"),
    ]
    for each in found.pairs:
        assert each.is_connected
        assert each.ready_s is not None
        assert [(asked.name, asked.detail) for asked in each.endpoints] == [
            ("GET /deals", "HTTP 200")
        ]


async def test_a_change_that_breaks_the_running_release_is_refused_by_endpoint(stage: Stage):
    stage.add('[targets.prod.snapshot]\nprovider = "logical"\n')
    stage.migration(11, "rename", *RENAME)
    said = r"running release v1 fails: GET /deals answered HTTP 409(?s:.*)announced_on(?s:.*)Expand"
    with pytest.raises(Refused, match=said):
        await rehearse(stage, release="v2")


async def test_the_running_release_meets_the_expand_alone_and_is_not_blamed_for_what_never_worked(
    stage: Stage, pg: server.Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DEV_URL", pg.url())
    stage.change("try_releases", 'dev_url_env = "DEV_URL"\ntry_releases')
    stage.migration(11, "no_acknowledged", *CONTRACT)
    stage.change('path = "/deals?limit=1"', 'path = "/quotes"')
    found = (await rehearse(stage, release="v2")).releases
    assert [(each.which, each.schema) for each in found.pairs] == [
        ("new", "after"),
        ("running", "expanded"),
        ("new", "expanded"),
        ("running", "before"),
        ("new", "before"),
    ]
    assert {each.verdict for each in found.pairs} == {"not proved"}
    assert all(each.ready_s and each.faults.keys() == {"GET /quotes"} for each in found.pairs)
