"""Drift: what somebody changed by hand since the last deploy is found, and told once."""

from __future__ import annotations

import json

import pytest

from airlock import drift, ledger, outbox, record, settings
from airlock.alert import Alert
from airlock.catalogue import Catalogue, diff
from airlock.drift import DriftReport
from airlock.errors import Transient
from airlock.introspection import read_guard
from airlock.ledger import Lease
from airlock.postgres import Conn
from tests.postgres.conftest import Project
from tests.postgres.test_command_line import airlock

TABLE = "CREATE TABLE deals (id int PRIMARY KEY, status text)"


async def close(conn: Conn, lease: Lease) -> None:
    """Let a deploy end with the schema that it began with."""
    row = await ledger.deploy(conn, lease.deploy)
    await ledger.advance(conn, lease, "succeeded", schema_after=row.schema_before)


@pytest.fixture
async def lease(project: Project, conn: Conn) -> Lease:
    """The last deploy, which left one table."""
    await project.execute(TABLE)
    found = await project.begin()
    await close(conn, found)
    return found


async def told(conn: Conn) -> list[Alert]:
    rows = await conn.fetch("SELECT body FROM airlock.alert ORDER BY id")
    return [record.load(Alert, row["body"]) for row in rows]


async def look_and_tell(project: Project) -> DriftReport:
    report = await drift.look(project.target)
    await drift.tell(project.target, report, run_url="http://prefect/runs/7")
    return report


async def test_an_untouched_schema_has_no_drift(project, lease):
    report = await drift.look(project.target)
    assert report.headline == f"NO DRIFT – prod is as deploy {lease.deploy} left it"
    assert not report.drifted


async def test_drift_names_what_was_added_removed_and_changed(project, lease):
    await project.execute(
        "CREATE INDEX by_hand ON deals (status); ALTER TABLE deals ALTER status SET DEFAULT 'new',"
        " ALTER status SET NOT NULL"
    )
    report = await drift.look(project.target)
    assert report.headline == f"DRIFT – prod differs from deploy {lease.deploy}: 2 objects"
    assert "+ index public.by_hand" in report.text
    assert "~ column public.deals.status default: (none) → 'new'" in report.text
    assert "- " not in report.text.splitlines()[1]
    await project.execute("DROP TABLE deals")
    assert "- table public.deals" in (await drift.look(project.target)).text


async def test_the_whole_catalogue_is_read_whatever_the_guard_says(project, conn, lease):
    await project.execute("CREATE TABLE by_hand (id int)")
    await conn.execute("UPDATE airlock.deploy SET guard_after = $1", await read_guard(conn))
    assert (await drift.look(project.target)).drifted


async def test_airlock_s_own_tables_and_rows_are_no_drift(project, conn, lease):
    await project.execute("INSERT INTO deals VALUES (1, 'open')")
    await conn.execute("CREATE TABLE airlock.more (id int)")
    assert not (await drift.look(project.target)).drifted


async def test_a_target_that_was_never_deployed_to_is_passed_over(project):
    report = await drift.look(project.target)
    assert report.headline == "PASSED OVER – prod: nothing was deployed to it yet"
    assert not report.drifted


async def test_a_target_with_an_open_deploy_is_passed_over(project, conn, lease):
    await project.execute("CREATE TABLE by_hand (id int)")
    await look_and_tell(project)
    opened = await project.begin()
    await ledger.advance(conn, opened, "applying")
    await project.execute("ALTER TABLE deals ADD COLUMN half_applied int")
    report = await drift.look(project.target)
    assert report.headline == f"PASSED OVER – prod: deploy {opened.deploy} is under way (applying)"
    await look_and_tell(project)
    assert [alert.state for alert in await told(conn)] == ["drift_found"], "it is not gone"


async def test_a_deploy_that_begins_while_the_schema_is_read_is_no_drift(
    project, conn, lease, monkeypatch
):
    read = drift.read_catalogue

    async def meanwhile(reader: Conn):
        opened = await project.begin()
        await ledger.advance(conn, opened, "applying")
        await project.execute("ALTER TABLE deals ADD COLUMN half_applied int")
        return await read(reader)

    monkeypatch.setattr(drift, "read_catalogue", meanwhile)
    report = await drift.look(project.target)
    assert report.found is None
    assert "is under way" in report.headline


async def test_the_same_drift_is_told_once_another_one_again_and_its_end_too(project, conn, lease):
    for change in (
        "CREATE TABLE by_hand (id int)",
        "SELECT 1",
        "ALTER TABLE by_hand ADD COLUMN more int",
        "DROP TABLE by_hand",
        "SELECT 1",
        "CREATE TABLE by_hand (id int)",
    ):
        await project.execute(change)
        await look_and_tell(project)
    alerts = await told(conn)
    assert [alert.state for alert in alerts] == [
        "drift_found",
        "drift_found",
        "drift_gone",
        "drift_found",
    ]
    assert all(alert.deploy is None for alert in alerts)
    assert {alert.run_url for alert in alerts} == {"http://prefect/runs/7"}
    assert alerts[0].headline == f"DRIFT – prod differs from deploy {lease.deploy}: 2 objects"
    assert "+ table public.by_hand" in alerts[0].error
    assert alerts[2].headline.startswith("DRIFT GONE – prod")


async def test_a_change_that_the_shortened_alert_does_not_show_is_told_all_the_same(
    project, conn, lease
):
    tables = "; ".join(f"CREATE TABLE by_hand_{n:02d} (id int)" for n in range(20))
    await project.execute(tables)
    await look_and_tell(project)
    await project.execute("ALTER TABLE by_hand_03 RENAME TO by_hand_03b")
    await look_and_tell(project)
    assert len(await told(conn)) == 2


async def test_drift_is_told_on_a_ledger_of_the_first_version(project, conn, lease):
    await conn.execute(
        "DELETE FROM airlock.ledger WHERE version > 1; DROP TABLE airlock.delivery, airlock.client,"
        " airlock.client_row, airlock.backfill_batch, airlock.backfill;"
        " ALTER TABLE airlock.alert ALTER deploy SET NOT NULL, ADD attempts integer,"
        " ADD last_error text; ALTER TABLE airlock.deploy DROP kind, DROP flow_run, DROP run_url,"
        " DROP approval, DROP refresh, DROP aftermath"
    )
    assert not (await drift.look(project.target)).drifted
    await project.execute("CREATE TABLE by_hand (id int)")
    await look_and_tell(project)
    assert [alert.state for alert in await told(conn)] == ["drift_found"]
    await outbox.deliver("prod")


async def test_a_database_out_of_reach_is_an_error_that_may_pass(project, lease, monkeypatch):
    monkeypatch.setenv("PROD_URL", "postgresql://owner:hidden@127.0.0.1:1/gone")
    with pytest.raises(Transient) as raised:
        await drift.look(settings.target("prod"))
    assert "hidden" not in str(raised.value)


def test_the_artifact_says_when_there_is_no_drift_and_why_nothing_was_compared():
    same = diff(Catalogue(objects={}), Catalogue(objects={}))
    clean = drift.markdown(DriftReport(target="prod", deploy=4, found=same))
    assert clean.startswith("# NO DRIFT – prod is as deploy 4 left it\n")
    failed = drift.markdown(DriftReport(target="prod", failure="no route to host"))
    assert failed.startswith("# NOT COMPARED – prod")
    assert "no route to host" in failed


async def test_the_command_prints_the_difference_and_exits_with_1(project, lease):
    unchanged = f"NO DRIFT – prod is as deploy {lease.deploy} left it\n"
    assert await airlock("drift", "prod") == (0, unchanged, "")
    await project.execute("CREATE TABLE by_hand (id int)")
    status, said, _ = await airlock("drift")
    assert status == 1
    assert "+ table public.by_hand" in said
    status, said, _ = await airlock("drift", "--json")
    (found,) = json.loads(said)
    assert (status, found["drifted"], found["target"]) == (1, True, "prod")
    assert "table public.by_hand" in found["difference"]["added"]


async def test_a_target_out_of_reach_does_not_hide_the_others(project, lease):
    with (project.root / "airlock.toml").open("a", encoding="utf-8") as file:
        file.write('[targets.away]\ndatabase_url_env = "NOT_SET_ANYWHERE"\n')
    status, said, _ = await airlock("drift")
    assert status == 1
    assert "NO DRIFT – prod" in said
    assert "NOT COMPARED – away could not be read" in said
    assert "NOT_SET_ANYWHERE" in said
