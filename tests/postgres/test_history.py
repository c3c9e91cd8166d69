"""What the ledger's rows add up to: history, measures, metrics, and the report as a file."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airlock import deploy as steps
from airlock import dora, ledger, metrics, record, report, settings
from airlock.alert import Alert
from airlock.postgres import Conn
from airlock.replacement import Replacement
from tests.postgres.conftest import Project
from tests.postgres.test_command_line import airlock

# Rows as deploys leave them, at times of our choice: minutes before now.
INSERT = """
INSERT INTO airlock.deploy
    (target, requester, reason, request, plan, kind, state, holder, fence, release, failed_step,
     failure, created_at, finished_at)
SELECT 'prod', 'Ada', '', request, plan, $1, $2, 'h', 1, $3, $4, $4,
    now() - make_interval(mins => $5),
    CASE WHEN $2 <> 'stranded' THEN now() - make_interval(mins => $6) END
FROM airlock.deploy WHERE id = 1
RETURNING id
"""
EVENT = (
    "INSERT INTO airlock.event (deploy, fence, step, phase, detail, at)"
    " VALUES ($1, 1, $2, $3, '', now() - make_interval(mins => $4))"
)


async def insert(conn: Conn, state: str, began: int, ended: int, **more: str | None) -> int:
    return await conn.fetchval(
        INSERT,
        more.get("kind", "deploy"),
        state,
        more.get("release"),
        more.get("failed_step"),
        began,
        ended,
    )


@pytest.fixture
async def ledger_of_weeks(project: Project, conn: Conn) -> Project:
    """Two good deploys, one rolled back, one undone by hand, a refresh, a dry run, a refusal."""
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    first = await project.begin()
    await steps.fail(first, "refused")
    commit = '{"ref": "v2", "commit": "%s", "directory": "x", "committed_at": %s}'
    hour_before = await conn.fetchval("SELECT to_json(now() - interval '160 min')::text")
    await insert(conn, "succeeded", 101, 100, release=commit % ("c", hour_before))
    await insert(conn, "succeeded", 91, 90, release=commit % ("d", "null"))
    back = await insert(conn, "rolled_back", 81, 74, failed_step="check_health")
    await conn.execute(EVENT, back, "check_health", "failed", 80)
    await conn.execute(EVENT, back, "check_health", "failed", 79)
    await conn.execute(EVENT, back, "roll_back", "failed", 84)
    await undone_by_hand(project, conn)
    refresh = await insert(conn, "succeeded", 51, 50, kind="refresh")
    names = Replacement.of(refresh, source="prod", database="d", oid=1)
    await conn.execute(
        "UPDATE airlock.deploy SET refresh = $2 WHERE id = $1", refresh, record.dump(names)
    )
    dry_run = await insert(conn, "failed", 41, 40)
    await conn.execute(
        'UPDATE airlock.deploy SET request = CASE id WHEN $1 THEN \'{"target": "prod"}\''
        " ELSE request || '{\"dry_run\": true}' END WHERE id IN ($1, $2)",
        refresh,
        dry_run,
    )
    return project


async def undone_by_hand(project: Project, conn: Conn) -> None:
    """A good deploy of 71 minutes ago, one step of which was tried twice; undone 60 to 56 ago."""
    good = await project.begin()
    for phase in ("intent", "failed", "intent", "done"):
        await ledger.event(conn, good, "take_snapshot", phase)
    await steps.succeed(good)
    undone, _ = await steps.reopen(project.target)
    await steps.roll_back(undone, "not wanted")
    await conn.execute(
        "UPDATE airlock.event SET at = now() - make_interval(mins => CASE"
        " WHEN step = $2 THEN 60 ELSE 70 END) WHERE deploy = $1",
        undone.deploy,
        ledger.REOPENED,
    )
    await conn.execute(
        "UPDATE airlock.deploy SET created_at = now() - interval '71 min',"
        " finished_at = now() - interval '56 min' WHERE id = $1",
        undone.deploy,
    )


async def test_the_measures_count_deploys_and_neither_refreshes_nor_dry_runs(
    ledger_of_weeks: Project,
):
    found = await dora.read(ledger_of_weeks.target)
    assert [each.state for each in found.outcomes] == [
        "failed",
        "succeeded",
        "succeeded",
        "rolled_back",
        "rolled_back",
    ]
    measured = found.dora
    assert (measured.changed, measured.failed) == (4, 2)
    assert (measured.lead_s, measured.leads) == (pytest.approx(3600, abs=1), 1)
    # 80 to 74 minutes ago by itself, 60 to 56 by hand.
    assert (measured.restore_s, measured.restored) == (pytest.approx(300, abs=1), 2)
    assert len(found.recent) == 7


async def test_a_step_that_went_well_at_another_try_is_not_what_an_undo_is_put_down_to(
    ledger_of_weeks: Project, conn: Conn
):
    (undone,) = [row for row in await ledger.recent(conn, limit=9) if row.failure == "not wanted"]
    assert undone.failed_step is None
    found = await steps.read_report(ledger_of_weeks.target, undone.id)
    assert "**Undone by hand:** not wanted" in report.markdown(found)
    ((alert,),) = await ledger_of_weeks.fetch(
        "SELECT body FROM airlock.alert WHERE body->>'state' = 'undone'"
    )
    told = record.load(Alert, str(alert))
    assert (told.failed_step, told.detect_s, told.restore_s) == ("", None, None)


async def test_a_target_without_a_ledger_has_no_outcomes(project: Project, conn: Conn):
    assert await ledger.outcomes(conn, "prod", since=dora.window(datetime.now(UTC))) == ()
    assert await ledger.tally(conn, "prod") == ({}, None)
    assert (await metrics.read(project.target)).last is None


async def test_an_older_deploy_than_the_window_is_not_counted(ledger_of_weeks: Project, conn: Conn):
    await conn.execute("UPDATE airlock.deploy SET created_at = now() - interval '91 days'")
    assert (await dora.read(ledger_of_weeks.target)).outcomes == ()


async def test_history_and_metrics_say_it_on_the_command_line(ledger_of_weeks: Project):
    status, out, _ = await airlock("history", "prod", "--limit", "2")
    assert status == 0
    assert len(out.split("\n\n")[0].splitlines()) == 2
    assert "Change failure rate:             50%  2 of 4 were rolled back" in out
    assert "Lead time for changes:" in out
    status, out, _ = await airlock("metrics")
    assert status == 0
    assert 'airlock_deploys{state="rolled_back",target="prod"} 2.0\n' in out
    assert 'airlock_deploys{state="succeeded",target="prod"} 2.0\n' in out
    assert out.endswith("\n")


async def test_the_report_is_written_as_a_file_for_its_owner(ledger_of_weeks: Project):
    status, out, _ = await airlock("report", "prod", "1", "--html")
    path = ledger_of_weeks.root / ".airlock" / "prod" / "reports" / "1.html"
    assert (status, out) == (0, f"The report of deploy 1 is in {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "<h1>REFUSED – prod was not touched" in path.read_text(encoding="utf-8")
    named = ledger_of_weeks.root / "mine.html"
    assert (await airlock("report", "prod", "1", "--output", str(named)))[0] == 0
    assert named.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    status, _, err = await airlock("report", "prod", "1", "--html", "--output", "/dev/full")
    assert (status, err.startswith("airlock: /dev/full cannot be written: ")) == (1, True)


@asynccontextmanager
async def gateway(status: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A receiver that keeps what it is sent: its address, and the requests."""
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        requests.append(head + await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as receiver:
        host, port = receiver.sockets[0].getsockname()
        yield f"http://user:s3cr3t@{host}:{port}/", requests


def publishing(project: Project, file: Path) -> settings.Target:
    found = settings.MetricsSettings(file=file, push_url_env="PUSH_URL")
    return project.target.model_copy(update={"metrics": found})


@pytest.mark.parametrize("status", [200, 500])
async def test_the_numbers_are_written_and_pushed_and_a_refusal_only_warns(
    ledger_of_weeks: Project, tmp_path: Path, monkeypatch, caplog, status
):
    async with gateway(status) as (url, requests):
        monkeypatch.setenv("PUSH_URL", url)
        await metrics.publish(publishing(ledger_of_weeks, tmp_path / "a.prom"))
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /metrics/job/airlock/target/prod HTTP/1.1\r\n")
    assert body.decode() == (tmp_path / "a.prom").read_text(encoding="utf-8")
    assert ("were not pushed: NotTaken" in caplog.text) is (status == 500)
    assert "s3cr3t" not in caplog.text


async def test_numbers_that_nobody_takes_only_warn(project: Project, monkeypatch, caplog):
    monkeypatch.setenv("PUSH_URL", "http://user:s3cr3t@127.0.0.1:1")
    await metrics.publish(publishing(project, Path("/nowhere/a.prom")))
    assert "were not written to /nowhere/a.prom: No such file" in caplog.text
    assert "were not pushed: ConnectError" in caplog.text
    assert "s3cr3t" not in caplog.text
    caplog.clear()
    monkeypatch.delenv("PROD_URL")
    await metrics.publish(publishing(project, Path("/nowhere/a.prom")))
    assert "could not be read: Refused" in caplog.text


async def test_a_target_that_asks_for_nothing_is_not_even_read(project: Project, monkeypatch):
    monkeypatch.delenv("PROD_URL")
    await metrics.publish(project.target)
