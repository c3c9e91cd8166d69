"""Whole deploys: each ends deployed, or exactly as before with a person told why."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.client.schemas.sorting import ArtifactSort

from airlock import deploy as steps
from airlock import ledger, service
from airlock.client import read as felt_by_clients
from airlock.report import markdown
from airlock.request import DeployRequest
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.stage import CONTRACT, DROP_INDEX, RELEASES

ADD_COLUMN = ("ALTER TABLE deals ADD COLUMN score integer;", "ALTER TABLE deals DROP COLUMN score;")

# The clone calls itself so; production does not.
ON_PRODUCTION_ONLY = "pg_catalog.current_setting('cluster_name') <> 'airlock clone'"


async def running(stage):
    async with connect(stage.superuser_url) as conn:
        return await steps.running_instance(conn, stage.target)


async def newest_report():
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key={"any_": ["deploy-prod"]}),
            sort=ArtifactSort.CREATED_DESC,
            limit=1,
        )
    return found[0].data


async def what_clients_felt(stage):
    row = await stage.last()
    async with ledger.connection(stage.target) as conn:
        return await felt_by_clients(conn, row.id)


async def event_of(server, name, began_at):
    """The first event of that name since; events reach the server some seconds late."""
    wanted = {"filter": {"event": {"name": [name]}, "occurred": {"since": began_at.isoformat()}}}
    found = []

    async def came():
        answer = await http.post("/events/filter", json=wanted)
        found.extend(answer.raise_for_status().json()["events"])
        return found

    async with server.client() as http:
        await until(came)
    return found[0]


async def assert_as_before(stage, before, *, release="v1"):
    after = await stage.world()
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert after.contents.tables == before.contents.tables
    health = await stage.health()
    assert health["release"] == release
    assert health["schema_version"] == 9


async def test_a_good_deploy_reaches_production_without_a_failed_request_and_leaves_nothing_to_do(
    stage, run_deploy
):
    from traffic import Traffic, lost

    # The old release reads and writes what the contract takes away; the new one does not.
    stage.migration(11, "no_acknowledged", *CONTRACT)
    stage.try_releases()
    traffic = Traffic(stage.base_url, clients=4, requests_per_s=40)
    await traffic.start()
    state = await run_deploy(release="v3", reason="halts")
    seen = await traffic.stop()

    assert state.name == "Deployed", state.message
    health = await stage.health()
    assert (health["release"], health["schema_version"]) == ("v3", 11)
    assert "| 011_no_acknowledged (contract) | applied |" in await newest_report()
    assert seen.failures == ()
    assert seen.writes
    async with connect(stage.superuser_url) as conn:
        assert await lost(conn, seen.writes) == ()
    assert (await stage.last()).state == "succeeded"
    assert stage.webhook.bodies == []
    report = await newest_report()
    for said in (
        "Code updated to use new schema – the new release v3 on the new schema: works, ready in ",
        (
            "No breaking changes to existing code – the running release v1 on the schema after the "
            "expand: works, "
        ),
        "Verified schema changes are correct – applied, undone and applied again",
    ):
        assert f"- ☑ {said}" in report

    felt = await what_clients_felt(stage)
    assert (felt.failed, list(felt.gaps)) == (0, [])
    asked = {each.kind for each in felt.channels if each.during.requests}
    assert asked == {"service read", "database read", "database write"}
    report = await newest_report()
    assert f"## What clients felt\n\n{felt.sentence}." in report
    assert f"![{felt.sentence}](data:image/svg+xml;base64," in report

    assert (await run_deploy()).name == "NothingToDo"

    # The service's own folder is of an older release, which goes live only where it is asked for.
    stage.migration(12, "no_created_at_index", *DROP_INDEX)
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    chosen = await steps.prepare_release(lease)
    assert chosen is not None
    assert (chosen.ref, chosen.directory) == ("v3", (await running(stage)).directory)
    await steps.fail(lease, "enough was seen")


async def test_a_deploy_without_a_release_keeps_the_one_that_serves_whatever_the_own_folder_holds(
    stage, run_deploy
):
    served = (await running(stage)).directory
    (stage.root / "service" / "routes.py").write_text("raise SystemExit('half-written')\n")
    state = await run_deploy()
    assert state.name == "Deployed", state.message
    assert (await running(stage)).directory == served
    health = await stage.health()
    assert (health["release"], health["schema_version"]) == ("v1", 10)
    report = await newest_report()
    assert f"| New release | v1 ({served.name[:12]}), in " in report
    assert "no release was named, so it stays" in report


async def test_without_a_service_a_release_is_asked_for_and_then_the_last_one_comes_back(
    stage, run_deploy
):
    async def stop():
        await service.stop(stage.target, await running(stage))

    await stop()
    state = await run_deploy()
    assert state.name == "Refused"
    assert "name its code: airlock deploy prod --release REF, or --release working-tree" in (
        (await stage.last()).failure or ""
    )
    state = await run_deploy(release="v2")
    assert state.name == "Deployed", state.message
    await stop()
    stage.migration(11, "score", *ADD_COLUMN)
    state = await run_deploy()
    assert state.name == "Deployed", state.message
    health = await stage.health()
    assert (health["release"], health["schema_version"]) == ("v2", 11)


async def test_a_dirty_working_tree_goes_live_only_by_name_and_is_named_everywhere(
    stage, run_deploy
):
    folder = stage.root / "service"
    file, text, replacement = RELEASES["flapping"]
    changed = (folder / file).read_text().replace(text, replacement, 1)
    (folder / file).write_text(changed.replace("\nrouter = ", "\nasked = 0\nrouter = ", 1))
    (folder / "notes.txt").write_text("not committed")
    state = await run_deploy(release="working-tree")
    assert state.name == "RolledBack", state.message
    assert (await stage.health())["release"] == "v1"
    tree = f"the working tree {folder}, at commit "
    named = "uncommitted: M routes.py, ?? notes.txt"
    begun, ended = stage.webhook.bodies
    report = await newest_report()
    for told in (begun["text"], ended["text"], report):
        assert tree in told
        assert named in told
    assert "| Old release | v1, in " in report


async def test_the_report_names_the_working_tree_that_was_started_not_the_one_that_was_rehearsed(
    stage,
):
    lease = await steps.open_deploy(DeployRequest(target="prod", release="working-tree"))
    assert lease is not None
    assert (await steps.prepare_release(lease)).dirty is False
    for step in (steps.take_snapshot, steps.rehearse, steps.ask, steps.apply_plan):
        await step(lease)
    await steps.verify_schema(lease)
    (stage.root / "service" / "later.txt").touch()
    await steps.restart_service(lease)
    report = markdown(await steps.read_report(stage.target, lease.deploy))
    assert "uncommitted: ?? later.txt" in report
    assert "its code cannot go back" not in report, "it goes back to v1"
    await steps.roll_back(lease, "enough was seen")
    assert (await stage.health())["release"] == "v1"


async def test_a_bad_release_is_rolled_back_and_rows_written_meanwhile_stay(
    stage, run_deploy, prefect_server
):
    from traffic import Traffic, lost

    stage.migration(11, "score", *ADD_COLUMN)
    before, began_at = await stage.world(), datetime.now(UTC)
    traffic = Traffic(stage.base_url, clients=4, requests_per_s=40)
    await traffic.start()
    state = await run_deploy(release="unhealthy")
    seen = await traffic.stop()

    assert state.name == "RolledBack", state.message
    after = await stage.world()
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert (await stage.health())["release"] == "v1"
    assert seen.writes
    async with connect(stage.superuser_url) as conn:
        assert await lost(conn, seen.writes) == ()
    begun, ended = stage.webhook.bodies
    assert begun["text"].startswith("*ROLLING BACK – check_health failed (prod)*")
    assert ended["text"].startswith("*ROLLED BACK – service healthy on 009_alert_notifications")
    finished_at = (await stage.last()).finished_at
    assert finished_at is not None
    assert stage.webhook.came_at[0] < finished_at, "it was told while it went on"
    report = await newest_report()
    assert report.startswith("# ROLLED BACK – service healthy on 009_alert_notifications (prod)\n")
    assert "- ☑ Tested on dev database – restored snapshot" in report
    assert "- ☐ API endpoints work – not checked" in report
    assert "| Health of the new release | unhealthy: " in report
    assert "| Restart in the rollback | pid " in report
    assert "| Health after the rollback | healthy: " in report
    event = await event_of(prefect_server, "airlock.deploy.rolled_back", began_at)
    assert event["resource"]["prefect.resource.id"] == "airlock.target.prod"
    assert event["payload"]["failed_step"] == "check_health"


async def test_a_contract_that_the_new_release_needs_goes_back_before_the_old_one_returns(
    stage, run_deploy
):
    stage.migration(11, "no_acknowledged", *CONTRACT)
    stage.change('"/deals?limit=1"', '"/alerts?limit=1"')
    before = await stage.world()
    # It reads what the contract takes away.
    state = await run_deploy(release="v2")
    assert state.name == "RolledBack", state.message
    row = await stage.last()
    said = "After its contract the new release is unhealthy: smoke GET /alerts: HTTP 409"
    assert said in (row.failure or "")
    assert row.failed_step == "check_health"
    await assert_as_before(stage, before)
    found = await steps.read_report(stage.target, row.id)
    went = {each.detail: each.at for each in found.events if each.step == "migration"}
    old = found.deploy.after.restart
    assert old is not None
    assert (
        went["010_halt_monitoring applied"]
        < found.restart.new.started_at
        < went["011_no_acknowledged applied"]
        < went["011_no_acknowledged rolled back"]
        < old.new.started_at
        < went["010_halt_monitoring rolled back"]
    )


async def test_a_schema_that_differs_from_the_rehearsal_is_rolled_back(stage, run_deploy):
    forward = f"""{ADD_COLUMN[0]}
    DO $$ BEGIN IF {ON_PRODUCTION_ONLY} THEN
        CREATE TABLE stray (id integer);
    END IF; END $$;"""
    stage.migration(11, "score", forward, f"DROP TABLE IF EXISTS stray;\n{ADD_COLUMN[1]}")
    before = await stage.world()
    state = await run_deploy(release="v2")
    assert state.name == "RolledBack"
    assert "table public.stray" in ((await stage.last()).failure or "")
    await assert_as_before(stage, before)
    assert "verify_schema" in stage.webhook.text


@pytest.mark.parametrize(
    ("release", "said", "ready_s"),
    [
        ("port-taken", "Address already in use", PATIENCE_S),
        ("exits", "no \ufffd licence", PATIENCE_S),
        ("never-ready", "not ready", 1),
    ],
)
async def test_a_release_that_does_not_come_up_leaves_the_old_one_serving(
    stage, run_deploy, release, said, ready_s
):
    stage.change(f"ready_s = {PATIENCE_S}", f"ready_s = {ready_s}")
    before = await stage.world()
    old = (await stage.health())["pid"]
    state = await run_deploy(release=release)
    assert state.name == "RolledBack"
    # The service's log stands in the report; Prefect shows a message as one paragraph.
    assert said in ((await stage.last()).failure or "")
    assert "\n" not in state.message
    await assert_as_before(stage, before)
    assert (await stage.health())["pid"] == old
    assert "restart_service" in stage.webhook.text


async def test_a_release_that_flaps_is_rolled_back(stage, run_deploy):
    before = await stage.world()
    state = await run_deploy(release="flapping")
    assert state.name == "RolledBack"
    assert "now and then" in state.message or "badly" in state.message
    await assert_as_before(stage, before)
    assert "check_health" in stage.webhook.text


async def test_a_plan_that_fails_half_way_is_undone_whole(stage, run_deploy):
    stage.migration(11, "score", *ADD_COLUMN)
    stage.migration(
        12,
        "trap",
        f"DO $$ BEGIN IF {ON_PRODUCTION_ONLY} THEN RAISE 'trapped'; END IF; END $$;\n"
        "CREATE TABLE trap (id integer);",
        "DROP TABLE trap;",
    )
    stage.migration(13, "after", "CREATE TABLE after_trap (id integer);", "DROP TABLE after_trap;")
    before = await stage.world()
    state = await run_deploy(release="v2")
    assert state.name == "RolledBack"
    assert "012_trap.sql" in state.message
    assert "trapped" in state.message
    await assert_as_before(stage, before)
    assert "apply_plan" in stage.webhook.text


async def test_what_is_refused_at_the_rehearsal_is_told_with_the_next_deploy_if_the_webhook_is_dead(
    stage, run_deploy, monkeypatch
):
    stage.webhook.status = 500
    stage.migration(11, "score", ADD_COLUMN[0], "ALTER TABLE deals DROP COLUMN IF EXISTS scores;")
    before = await stage.world()
    state = await run_deploy()
    # Rollback notes that do not restore are refused.
    assert state.name == "Refused"
    assert "column public.deals.score" in ((await stage.last()).failure or "")
    await assert_as_before(stage, before)
    assert "rehearse" in stage.webhook.text

    stage.webhook.status = 200
    stage.webhook.bodies.clear()
    (stage.root / "migrations" / "011_score.sql").unlink()
    monkeypatch.setenv("PROD_REPLICATION_URL", os.environ["PROD_DATABASE_URL"])
    state = await run_deploy(release="v2")
    # The dead webhook failed no deploy, and its alert has waited.
    assert state.name == "Deployed", state.message
    assert "REFUSED" in stage.webhook.text
    # A role without replication deploys over a logical snapshot.
    taken = json.loads((await stage.last()).snapshot)
    assert taken["provider"] == "logical"
    assert "REPLICATION" in taken["provider_reason"]
