"""Whole refreshes with the tracker and its service: a masked copy serves, or what served before."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from airlock import ledger, release, server, service, settings
from airlock.postgres import quote_ident, quote_literal
from flows.runtime import Runtime
from tests import own
from tests.acceptance.test_secrets import (
    DECOY,
    found_in_places,
    leak,
    new_words,
    watching_command_lines,
)
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.stage import TRACKER, Stage

ADMIN = "refresh_admin"
REFRESH = """
[targets.staging]
database_url_env = "STAGING_DATABASE_URL"
env_file = "staging.env"
[targets.staging.refresh]
source = "prod"
admin_url_env = "ADMIN_URL"
key_env = "MASK_KEY"
[targets.staging.alerts]
slack_url_env = "PROD_SLACK_URL"
[targets.staging.service]
repository = "service"
directory = "service"
port = {port}
env_file = "staging.env"
ready_s = {ready_s}
[targets.staging.health]
url = "http://127.0.0.1:{port}/health"
consecutive = 3
interval_ms = 50
timeout_s = 30
bake_s = 0.3
smoke = [{{ path = "/deals?limit=1" }}]
"""


def mask_tables() -> str:
    """The tracker's rules, as they would stand in airlock.toml."""
    text = (TRACKER / "mask.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)
    return text.replace("\n[", "\n[targets.staging.mask.")


@pytest.fixture
async def planted(pg: server.Server) -> AsyncIterator[Mapping[str, str]]:
    """The secrets of a refresh: the key of its masks, and the password of who makes databases."""
    words = new_words("key", "admin", "wrong", DECOY)
    async with connect(pg.url()) as superuser:
        await superuser.execute(
            f"CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD {quote_literal(words['admin'])}"
        )
    yield words
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"DROP ROLE {ADMIN}")


@pytest.fixture
async def staging(
    stage: Stage,
    pg: server.Server,
    base_009: str,
    planted: Mapping[str, str],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Beside production: staging with rows of its own, release v1 serving."""
    name = f"staging_{port}"
    async with connect(pg.url()) as superuser:
        await superuser.execute(
            f"CREATE DATABASE {name} OWNER owner TEMPLATE {quote_ident(base_009)}"
        )
    async with connect(pg.url(name)) as superuser:
        await superuser.execute("DELETE FROM alerts; UPDATE tickers SET exchange = 'STAGING'")
    for variable, value in {
        "STAGING_DATABASE_URL": pg.url(name, "owner"),
        "ADMIN_URL": pg.tcp_url("postgres", ADMIN, planted["admin"]),
        "MASK_KEY": planted["key"],
    }.items():
        monkeypatch.setenv(variable, value)
    (stage.root / "staging.env").write_text(f"DATABASE_URL={pg.url(name, 'owner')}\n")
    with (stage.root / "airlock.toml").open("a", encoding="utf-8") as file:
        file.write(REFRESH.format(port=port, ready_s=PATIENCE_S) + mask_tables())
    made = replace(stage, port=port, superuser_url=pg.url(name))
    target = settings.target("staging")
    first = await release.check_out(target, "v1")
    await service.restart(target, first, old=None, token="before")
    yield made
    own.end_all(stage.root)
    async with connect(pg.url()) as superuser:
        for row in await superuser.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", name
        ):
            await superuser.execute(f"DROP DATABASE {quote_ident(row['datname'])} WITH (FORCE)")


async def last() -> ledger.Deploy:
    async with ledger.connection(settings.target("staging")) as conn:
        return (await ledger.recent(conn))[0]


async def test_the_service_runs_on_a_masked_copy_until_a_person_takes_it_back(
    stage: Stage, staging: Stage, flows_report_to_the_server: None
):
    from flows.refresh_staging import refresh_staging
    from flows.rollback import rollback

    del flows_report_to_the_server
    before, production = await staging.world(), await stage.world()
    state = await refresh_staging(target="staging", reason="nightly", return_state=True)
    assert state.name == "Refreshed", state.message
    # 010 is pending in production, and part of the copy.
    health = await staging.health()
    assert (health["release"], health["schema_version"]) == ("v1", 10)
    async with connect(staging.superuser_url) as conn:
        assert await conn.fetchval("SELECT count(*) FROM alerts") > 0
        assert not await conn.fetchval("SELECT bool_or(title LIKE 'Note %') FROM deal_research")
        masked = await conn.fetchval("SELECT count(DISTINCT analyst) FROM deal_research")
    async with connect(stage.superuser_url) as conn:
        assert await conn.fetchval("SELECT count(DISTINCT analyst) FROM deal_research") == masked
    row = await last()
    assert row.state == "succeeded"
    assert row.headline.startswith("REFRESHED – staging is a masked copy of prod")
    assert (await stage.world()).contents.tables == production.contents.tables

    state = await rollback(target="staging", reason="not wanted", return_state=True)
    assert state.name == "UndoneByHand", state.message
    after = await staging.world()
    assert after.contents.tables == before.contents.tables
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert (await staging.health())["schema_version"] == 9


async def test_an_unhealthy_service_gets_the_old_database_back_and_no_secret_is_left_anywhere(
    staging: Stage,
    flows_report_to_the_server: None,
    planted: Mapping[str, str],
    prefect_server: Runtime,
    pg: server.Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    from flows.refresh_staging import refresh_staging

    del flows_report_to_the_server
    config = staging.root / "airlock.toml"
    text = config.read_text(encoding="utf-8")
    broken = 'neutralise = ["ALTER TABLE deals RENAME TO gone"]\nkey_env'
    config.write_text(text.replace("key_env", broken), encoding="utf-8")
    before = await staging.world()
    with watching_command_lines() as seen:
        state = await refresh_staging(target="staging", return_state=True)
        wrong = pg.tcp_url("postgres", ADMIN, planted["wrong"])
        with monkeypatch.context() as patch:
            patch.setenv("ADMIN_URL", wrong)
            refused = await refresh_staging(target="staging", return_state=True)
    assert state.name == "RolledBack", state.message
    assert refused.name == "Refused", refused.message
    after = await staging.world()
    assert after.contents.tables == before.contents.tables
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert (await staging.health())["schema_version"] == 9
    assert (await last()).failed_step in ("restart_service", "check_health")
    assert "ROLLED BACK" in staging.webhook.text

    with watching_command_lines() as more:
        await leak(planted[DECOY], staging, more)
    found = await found_in_places(
        planted, staging, prefect_server, pg, seen | more, capfd.readouterr()
    )
    assert found == {place: {DECOY} for place in found}
