"""The outbox on a real ledger: who is told, when it is tried again, and nobody twice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from airlock import deploy as steps
from airlock import ledger, outbox, postgres, record, settings, snapshot
from airlock.__main__ import main
from airlock.alert import letters
from airlock.approval import Approval
from airlock.errors import Refused
from airlock.health import HealthVerdict
from airlock.ledger import Lease
from airlock.postgres import Conn
from airlock.request import DeployRequest
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.postgres.conftest import Project
from tests.receiver import Receiver, receiving
from tests.unit.test_alert import AT

TABLE = ("CREATE TABLE a (id int);", "DROP TABLE a;")


@dataclass(slots=True, kw_only=True)
class Channels:
    """Where the project's alerts go."""

    slack: Receiver
    pager: Receiver
    hook: Receiver

    @property
    def told(self) -> list[str]:
        """The first line of each message, markup left out."""
        return [body["text"].splitlines()[0].strip("*") for body in self.slack.bodies]

    @property
    def pages(self) -> list[tuple[str, str]]:
        return [(b["event_action"], b["dedup_key"]) for b in self.pager.bodies]

    @property
    def states(self) -> list[str]:
        return [body["state"] for body in self.hook.bodies]


@pytest.fixture
async def channels(project: Project, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Channels]:
    async with receiving() as slack, receiving() as pager, receiving() as hook:
        with (project.root / "airlock.toml").open("a", encoding="utf-8") as file:
            file.write(
                '[targets.prod.alerts]\nslack_url_env = "SLACK_URL"\nwebhook_url_env = "HOOK_URL"\n'
                f'pagerduty_key_env = "PAGER_KEY"\npagerduty_url = "{pager.url}/v2/enqueue"\n'
            )
        monkeypatch.setenv("SLACK_URL", f"{slack.url}/s3cr3t")
        monkeypatch.setenv("HOOK_URL", f"{hook.url}/s3cr3t")
        monkeypatch.setenv("PAGER_KEY", "pager-s3cr3t")
        yield Channels(slack=slack, pager=pager, hook=hook)


async def failed(project: Project, failure: str = "it is wrong") -> Lease:
    lease = await project.begin()
    await steps.fail(lease, failure)
    return lease


async def longer_ago(project: Project, seconds: float) -> None:
    """Every attempt so far was that much earlier."""
    await project.execute(
        f"UPDATE airlock.delivery SET tried_at = tried_at - interval '{seconds} s'"
    )


async def test_an_alert_is_closed_when_each_of_its_channels_has_it(project, channels):
    await failed(project)
    tried = await outbox.deliver("prod")
    assert sorted(letter.delivery.channel for letter in tried) == ["pagerduty", "slack", "webhook"]
    assert all(letter.delivery.taken for letter in tried)
    assert channels.told == ["REFUSED – prod was not touched, still on an empty schema"]
    assert channels.pages == [("trigger", "airlock-prod-1")]
    assert await project.fetch("SELECT delivered_at IS NOT NULL FROM airlock.alert") == [(True,)]
    assert await outbox.deliver("prod", force=True) == ()
    assert len(channels.slack.bodies) == 1


async def test_a_channel_that_is_down_holds_up_no_other_and_is_tried_later(project, channels):
    channels.slack.status = 500
    await failed(project)
    await outbox.deliver("prod")
    assert channels.pages == [("trigger", "airlock-prod-1")]
    assert channels.states == ["failed"]
    assert await outbox.deliver("prod") == ()  # its pause is not over
    channels.slack.status = 200
    assert await outbox.deliver("prod") == ()
    await longer_ago(project, letters.pause_s(1))
    (letter,) = await outbox.deliver("prod")
    assert (letter.delivery.channel, letter.delivery.attempts, letter.delivery.taken) == (
        "slack",
        2,
        True,
    )
    assert (len(channels.slack.bodies), len(channels.pager.bodies)) == (2, 1)
    assert await project.fetch("SELECT delivered_at IS NOT NULL FROM airlock.alert") == [(True,)]


async def test_a_channel_that_does_not_answer_at_all_does_not_keep_the_others_waiting(
    project, channels
):
    channels.slack.hold.clear()
    await failed(project)
    passing = asyncio.create_task(outbox.deliver("prod"))
    await until(lambda: channels.pages and channels.states)
    assert not passing.done()
    channels.slack.hold.set()
    await passing


def test_the_pauses_grow_and_end_at_a_quarter_of_an_hour():
    pauses = [letters.pause_s(n) for n in range(1, 12)]
    assert pauses[:4] == [10, 20, 40, 80]
    assert pauses == sorted(pauses)
    assert max(pauses) == letters.pause_s(10_000) == 900


async def test_the_number_of_waiting_alerts_is_published_by_whoever_delivers(project, channels):
    with (project.root / "airlock.toml").open("a", encoding="utf-8") as file:
        file.write('[targets.prod.metrics]\nfile = "prod.prom"\n')
    await failed(project)
    for channels.slack.status, waiting in ((500, 1), (200, 0)):
        await outbox.deliver("prod", force=True)
        numbers = (project.root / "prod.prom").read_text(encoding="utf-8")
        assert f'airlock_alerts_waiting{{target="prod"}} {waiting}.0\n' in numbers


async def test_force_does_not_wait_for_the_pause(project, channels):
    channels.slack.status = 500
    await failed(project)
    await outbox.deliver("prod")
    channels.slack.status = 200
    (letter,) = await outbox.deliver("prod", force=True)
    assert letter.delivery.taken


async def test_a_new_alert_takes_along_what_waited_for_its_channel_and_order_is_kept(
    project, channels
):
    channels.slack.status = 500
    await failed(project, "first")
    await outbox.deliver("prod")
    channels.slack.status, channels.slack.received = 200, []
    await failed(project, "second")
    await outbox.deliver("prod")
    errors = [body["text"].partition("Error: ")[2][:6].strip() for body in channels.slack.bodies]
    assert errors == ["first", "second"]


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://127.0.0.1:1/", "ConnectError"), (None, "HTTP status 500")],
    ids=["out of reach", "out of order"],
)
async def test_a_channel_that_is_down_is_asked_once_in_a_pass_and_left_alone_then(
    project, channels, monkeypatch, url, said
):
    channels.slack.status = 500
    if url:
        monkeypatch.setenv("SLACK_URL", url)
    await failed(project)
    await failed(project)
    await outbox.deliver("prod")
    assert await outbox.deliver("prod") == ()
    rows = await project.fetch(
        "SELECT attempts, last_error FROM airlock.delivery WHERE channel = 'slack' ORDER BY alert"
    )
    assert rows == [(1, said), (0, None)]
    assert len(channels.pager.bodies) == 2


async def test_two_deliverers_at_the_same_moment_send_once_and_in_order(project, channels):
    await failed(project)
    channels.slack.hold.clear()
    first = asyncio.create_task(outbox.deliver("prod"))
    await until(lambda: channels.slack.received)
    await steps.succeed(await project.begin())
    second = asyncio.create_task(outbox.deliver("prod", force=True))
    await asyncio.sleep(0.3)
    assert len(channels.slack.received) == 1
    channels.slack.hold.set()
    assert len(await first) == 3
    assert {letter.alert.state for letter in await second} == {"succeeded"}
    assert [title.partition(" – ")[0] for title in channels.told] == ["REFUSED", "RESOLVED"]


async def test_a_deliverer_that_hangs_is_not_waited_for_for_ever(project, channels, monkeypatch):
    await failed(project)
    channels.slack.hold.clear()
    first = asyncio.create_task(outbox.deliver("prod"))
    await until(lambda: channels.slack.received)
    monkeypatch.setattr(outbox, "SEND_S", 0.1)
    await failed(project)
    assert "slack" not in {x.delivery.channel for x in await outbox.deliver("prod", force=True)}
    channels.slack.hold.set()
    await first
    assert len(channels.slack.received) == 1


async def test_an_attempt_that_another_deliverer_made_meanwhile_is_not_made_again(
    project, channels, conn
):
    channels.slack.status = 500
    await failed(project)
    waiting = await letters.outstanding(conn, project.target)
    await outbox.deliver("prod")
    slack = [letter for letter in waiting if letter.delivery.channel == "slack"]
    assert await outbox._send_all(project.target, slack, 0) == ()
    assert len(channels.slack.received) == 1


async def test_what_a_channel_refuses_waits_out_its_own_pause_and_holds_up_nothing_new(
    project, channels
):
    channels.slack.status = 404
    await failed(project, "first")
    await failed(project, "second")
    await outbox.deliver("prod")
    assert len(channels.slack.received) == 2
    channels.slack.status, channels.slack.received = 200, []
    await failed(project, "third")
    await outbox.deliver("prod")
    assert ["third" in body["text"] for body in channels.slack.bodies] == [True]
    await longer_ago(project, letters.pause_s(1))
    await outbox.deliver("prod")
    assert len(channels.slack.received) == 3


async def test_what_is_never_taken_is_given_up_after_a_week_and_said_to_be(
    project, channels, caplog
):
    channels.slack.status = 404
    await failed(project)
    await outbox.deliver("prod")
    await failed(project)
    await project.execute("UPDATE airlock.alert SET created_at = now() - interval '8 days'")
    out = (await airlock("deliver", "prod"))[1]
    assert "slack never did, and is asked no more: REFUSED" in out
    assert "1 of the last days given up: slack: HTTP status 404" in (await airlock("status"))[1]
    closed = "SELECT id, delivered_at IS NOT NULL FROM airlock.alert ORDER BY id"
    # What was not tried yet is tried once.
    assert await project.fetch(closed) == [(1, True), (2, False)]
    assert len(channels.slack.received) == 2
    await outbox.deliver("prod", force=True)
    assert await project.fetch(closed) == [(1, True), (2, True)]
    assert len(channels.slack.received) == 2


async def test_what_is_answered_badly_for_a_day_holds_up_nothing_more(
    project, channels, monkeypatch
):
    monkeypatch.setattr(letters, "HOLDS_UP_ATTEMPTS", 2)
    channels.slack.status = 500
    for _ in range(2):
        await failed(project)
        await outbox.deliver("prod")
    channels.slack.status, channels.slack.received = 200, []
    await outbox.deliver("prod", force=True)
    keys = "SELECT alert FROM airlock.delivery WHERE channel = 'slack' ORDER BY delivered_at"
    assert await project.fetch(keys) == [(2,), (1,)]


async def test_a_killed_deliverer_leaves_the_alert_to_the_next_one(project, channels):
    await failed(project)
    channels.slack.hold.clear()
    killed = asyncio.create_task(outbox.deliver("prod"))
    await until(lambda: channels.slack.received)
    killed.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await killed
    channels.slack.hold.set()
    tried = await outbox.deliver("prod")
    assert "slack" in {letter.delivery.channel for letter in tried if letter.delivery.taken}
    assert len(channels.slack.received) == 2


async def test_a_channel_that_is_configured_no_more_keeps_no_alert_open(project, channels):
    channels.slack.status = 500
    await failed(project)
    await outbox.deliver("prod")
    toml = project.root / "airlock.toml"
    toml.write_text(toml.read_text().replace('slack_url_env = "SLACK_URL"\n', ""))
    await outbox.deliver("prod")
    assert await project.fetch("SELECT delivered_at IS NOT NULL FROM airlock.alert") == [(True,)]


# ---------------------------------------------------------------- what is told


async def test_the_next_good_deploy_resolves_once_and_a_later_one_is_told_to_programs_only(
    project, channels
):
    await failed(project)
    project.write(1, *TABLE)
    await project.deploy()
    project.write(2, "CREATE TABLE b (id int);", "DROP TABLE b;", name="second")
    await project.deploy()
    await outbox.deliver("prod")
    assert channels.told == [
        "REFUSED – prod was not touched, still on an empty schema",
        "RESOLVED – DEPLOYED – prod stands at 001",
    ]
    assert channels.states == ["failed", "succeeded", "succeeded"]
    # The page that was resolved before it was sent is not opened any more.
    assert channels.pages == [("resolve", "airlock-prod-1")]


async def test_a_page_that_was_sent_is_resolved(project, channels):
    await failed(project)
    await outbox.deliver("prod")
    project.write(1, *TABLE)
    await project.deploy()
    await outbox.deliver("prod")
    assert channels.pages == [("trigger", "airlock-prod-1"), ("resolve", "airlock-prod-1")]


@pytest.mark.parametrize("before", [steps.fail, steps.roll_back])
async def test_a_refusal_is_resolved_when_nothing_is_left_to_deploy_and_nothing_worse_is(
    project, channels, before
):
    await before(await project.begin(), "it is wrong")
    await failed(project)
    assert await steps.open_deploy(DeployRequest(target="prod", dry_run=True)) is None
    refused = len(await project.fetch("SELECT FROM airlock.alert"))
    for _ in range(2):
        assert await steps.open_deploy(DeployRequest(target="prod")) is None
    await outbox.deliver("prod")
    title = "RESOLVED – WITHDRAWN – prod has nothing left to deploy, still on an empty schema"
    assert channels.told[refused:] == ([title] if before is steps.fail else [])


async def test_a_deploy_that_is_silent_for_longer_than_its_limit_is_told_once_for_each_runner(
    project, channels
):
    lease = await project.begin()
    silent = "UPDATE airlock.deploy SET heartbeat_at = clock_timestamp() - interval '{} s'"
    await project.execute(silent.format(100))
    await outbox.deliver("prod")
    assert channels.told == []  # recover's turn
    await project.execute(silent.format(130))
    for _ in range(2):
        await outbox.deliver("prod")
    assert channels.told == ["CUT OFF – planned, and its runner is gone (prod)"]
    assert channels.pages == [("trigger", "airlock-prod-1-cut_off")]
    assert "Next: airlock recover prod" in channels.slack.bodies[0]["text"].replace("*", "")

    await project.take_over(lease)
    await outbox.deliver("prod")
    await project.execute(silent.format(130))
    await outbox.deliver("prod")
    assert len(channels.told) == 2


async def test_an_undo_by_hand_pages_nobody_and_a_rollback_after_a_failure_does(project, channels):
    project.write(1, *TABLE)
    await project.deploy()
    lease, _ = await steps.reopen(project.target)
    await steps.roll_back(lease, "asked for")
    await outbox.deliver("prod")
    assert channels.told == ["ROLLED BACK – schema back on an empty schema (prod)"]
    assert (channels.pages, channels.states) == ([], ["succeeded", "undone"])
    again = await project.begin()
    await steps.roll_back(again, "it failed")
    await outbox.deliver("prod")
    assert set(channels.pages) == {("trigger", "airlock-prod-2")}
    assert channels.states[2:] == ["rolling_back", "rolled_back"]


async def test_whoever_ends_a_deploy_by_hand_before_production_pages_nobody(project, channels):
    project.write(1, *TABLE)
    await project.begin()
    lease, _ = await steps.reopen(project.target)
    await steps.fail(lease, "not wanted")
    await outbox.deliver("prod")
    assert "trigger" not in dict(channels.pages)
    assert channels.states == ["turned_down"]


async def test_a_stranded_production_pages_although_a_refusal_is_open_and_all_end_together(
    project, channels
):
    await failed(project)
    project.write(1, *TABLE)
    await steps.strand(await project.begin(), "it does not go back")
    await outbox.deliver("prod")
    opened = ["airlock-prod-1", "airlock-prod-2-stranded"]
    assert channels.pages == [("trigger", each) for each in opened]
    lease, _ = await steps.reopen(project.target)
    await steps.roll_back(lease, "asked for")
    await outbox.deliver("prod")
    assert channels.pages[2:] == [("resolve", each) for each in opened]


@pytest.mark.parametrize("end", [steps.fail, steps.start_rollback])
async def test_a_deploy_that_a_person_cancelled_pages_nobody_and_leaves_nothing_open(
    project, channels, end
):
    project.write(1, *TABLE)
    lease = await project.begin()
    await end(lease, "The run was asked to end (Cancel).", cancelled=True)
    if end is steps.start_rollback:
        await steps.roll_back(lease, "The run was asked to end (Cancel).")
    await outbox.deliver("prod")
    assert channels.told != []
    assert channels.pages == []
    await project.deploy()
    await outbox.deliver("prod")
    assert channels.pages == []
    assert not channels.told[-1].startswith("RESOLVED")


async def test_what_is_stranded_pages_whoever_asked_for_the_end(project, channels):
    project.write(1, *TABLE)
    lease = await project.begin()
    await steps.start_rollback(lease, "The run was asked to end (Cancel).", cancelled=True)
    await steps.strand(lease, "it does not go back")
    await outbox.deliver("prod")
    assert channels.pages == [("trigger", "airlock-prod-1-stranded")]


async def test_the_one_incident_of_an_older_version_is_resolved_under_its_own_name(
    project, channels
):
    await failed(project)
    older = "UPDATE airlock.alert SET body = body - 'incident' - 'ends' - 'cancelled'"
    await project.execute(older)
    await outbox.deliver("prod")
    project.write(1, *TABLE)
    await project.deploy()
    await outbox.deliver("prod")
    assert channels.pages == [("trigger", "airlock-prod"), ("resolve", "airlock-prod")]


async def test_late_schedules_are_told_once_and_once_that_they_are_on_time_again(
    project, channels, conn
):
    late = ["drift/nightly should have started 5 min ago", "no worker takes runs"]
    assert not await outbox.schedules_looked_at(late), "there is no ledger to put it into"
    await ledger.ensure(conn)
    news = []
    for problems in ([], late, late, late[:1], [], [], late):
        news.append(await outbox.schedules_looked_at(problems))
        await outbox.deliver("prod")
    assert news == [False, True, False, False, True, False, True]
    assert channels.told == [
        f"SCHEDULES LATE – {late[0]} (and 1 more)",
        "RESOLVED – SCHEDULES ON TIME – each has its next run and a worker that takes it",
        f"SCHEDULES LATE – {late[0]} (and 1 more)",
    ]
    incident = "airlock-prod-schedules"
    actions = ["trigger", "resolve", "trigger"]
    assert channels.pages == [(action, incident) for action in actions]


async def test_a_good_deploy_does_not_say_that_schedules_are_on_time(project, channels, conn):
    await ledger.ensure(conn)
    await outbox.schedules_looked_at(["no worker takes runs"])
    project.write(1, *TABLE)
    await project.deploy()
    await outbox.deliver("prod")
    assert channels.pages == [("trigger", "airlock-prod-schedules")]


async def test_an_undo_by_hand_resolves_a_stranded_deploy(project, channels):
    project.write(1, *TABLE)
    lease = await project.begin()
    await steps.strand(lease, "it does not go back")
    await outbox.deliver("prod")
    assert channels.told == ["ROLLBACK FAILED – the database needs a person (prod)"]
    lease, _ = await steps.reopen(project.target)
    await steps.roll_back(lease, "asked for")
    await outbox.deliver("prod")
    assert channels.told[1:] == ["RESOLVED – ROLLED BACK – schema back on an empty schema (prod)"]
    assert channels.pages == [
        ("trigger", "airlock-prod-1-stranded"),
        ("resolve", "airlock-prod-1-stranded"),
    ]


@pytest.mark.parametrize("end", [steps.fail, steps.strand, steps.roll_back])
async def test_a_failure_that_cannot_be_stored_as_it_is_ends_the_deploy_and_is_told(
    project, channels, conn, end
):
    project.write(1, *TABLE)
    lease = await project.begin()
    seen = HealthVerdict(verdict="unhealthy", summary="\0", evidence=(), seconds=1, first_bad="\0")
    await ledger.note(conn, lease, health=record.dump(seen))
    await end(lease, "its last lines: a\0b\ud800c")
    await outbox.deliver("prod")
    assert "a\ufffdb\ufffdc" in channels.slack.bodies[0]["text"]
    assert "first bad sign: \ufffd" in channels.slack.bodies[0]["text"]


async def test_whoever_was_called_past_the_outbox_is_told_that_it_is_over(project, channels, conn):
    project.write(1, *TABLE)
    for state, end in (("applying", steps.roll_back), ("planned", steps.fail)):
        await ledger.advance(conn, await project.begin(), state)
        lease, _ = await steps.reopen(project.target)
        await end(lease, "asked for")
    await outbox.deliver("prod")
    assert channels.told == [
        "RESOLVED – ROLLED BACK – schema back on an empty schema (prod)",
        "RESOLVED – REFUSED – prod was not touched, still on an empty schema",
    ]
    assert channels.pages[0] == ("resolve", "airlock-prod-1-stranded")


async def test_approval_is_asked_for_once_per_rehearsal_and_pages_nobody(project, channels, conn):
    project.write(1, *TABLE)
    lease = await project.begin()
    asked = Approval(
        required_because="prod always asks", asked_at=AT, schema_before="x", checksums=()
    )
    known = {"run_url": "http://prefect/runs/1", "approval": record.dump(asked)}
    await ledger.advance(conn, lease, "rehearsed", **known)
    for _ in range(2):
        await outbox.approval_wanted(conn, lease)
    await outbox.deliver("prod")
    assert channels.told == ["APPROVAL WANTED – prod 001 waits for a person"]
    text = channels.slack.bodies[0]["text"]
    assert "because prod always asks" in text
    assert "http://prefect/runs/1" in text
    assert (channels.pages, channels.states) == ([], ["approval_wanted"])
    await ledger.note(conn, lease, rehearsal='{"again": 1}')
    await outbox.approval_wanted(conn, lease)
    await outbox.deliver("prod")
    assert len(channels.told) == 2


@pytest.mark.parametrize(
    ("decision", "line", "state"),
    [
        ("approved", "Approval: Approved by Grace: seen it", "failed"),
        ("rejected", "Approval: Rejected by Grace: seen it", "turned_down"),
        ("not needed", None, "failed"),
    ],
)
async def test_an_alert_says_who_approved_and_no_pager_rings_where_a_person_said_no(
    project, channels, conn, decision, line, state
):
    lease = await project.begin()
    decided = Approval(
        required_because="prod always asks",
        asked_at=AT,
        schema_before="x",
        checksums=(),
        decision=decision,
        name="Grace",
        reason="seen it",
    )
    await ledger.note(conn, lease, approval=record.dump(decided))
    await steps.fail(lease, "it is wrong")
    await outbox.deliver("prod")
    lines = channels.slack.bodies[0]["text"].splitlines()
    assert [each for each in lines if each.startswith("Approval")] == ([line] if line else [])
    assert channels.states == [state]
    assert len(channels.pages) == (state == "failed")


async def test_drift_is_told_when_it_is_new_and_when_it_is_gone(project, channels, conn):
    await ledger.ensure(conn)
    found = []
    for difference in ("+ a", "+ a", "+ a\n+ b", None, None, "+ a"):
        if difference:
            found.append(await outbox.drift_found(conn, project.target, "DRIFT", difference))
        else:
            found.append(await outbox.drift_gone(conn, project.target))
        await outbox.deliver("prod")
    assert found == [True, False, True, True, False, True]
    assert channels.states == ["drift_found", "drift_found", "drift_gone", "drift_found"]
    assert channels.told[2] == "RESOLVED – DRIFT GONE – prod has the schema of its ledger again"
    assert [action for action, _ in channels.pages] == ["trigger", "trigger", "resolve", "trigger"]


async def test_a_drift_that_comes_back_after_a_good_deploy_is_told_again(project, channels, conn):
    await ledger.ensure(conn)
    assert await outbox.drift_found(conn, project.target, "DRIFT", "+ a")
    await steps.succeed(await project.begin())
    found = [await outbox.drift_found(conn, project.target, "DRIFT", "+ a") for _ in range(2)]
    assert found == [True, False]
    await outbox.deliver("prod")
    assert [action for action, _ in channels.pages] == ["resolve", "trigger"]


async def test_no_secret_reaches_ledger_or_receiver(project, channels, monkeypatch):
    monkeypatch.setenv("PROD_URL", project.database.tcp_url)
    password = "owner's pass"
    said = f"cannot connect with {project.database.tcp_url} nor {password}; {'x'}"
    lease = await project.begin()
    for end in (steps.roll_back, steps.strand, steps.fail):
        await end(lease, said)
        with pytest.raises(Refused):
            async with ledger.journal(project.target, lease, "rehearse"):
                raise Refused(said)
    await outbox.deliver("prod")
    rows = [
        json.dumps(await project.fetch(f"SELECT t::text FROM airlock.{table} AS t"))
        for table in ("deploy", "event", "alert")
    ]
    sent = json.dumps([each.body for each in channels.slack.received + channels.hook.received])
    for text in (*rows, sent):
        assert "cannot connect with" in text
        assert password not in text
        assert "owner%27s%20pass" not in text


async def test_no_row_of_production_reaches_a_receiver_and_the_report_has_it(
    project, channels, conn
):
    await project.execute("CREATE TABLE people (email text)")
    await project.execute("INSERT INTO people VALUES ('alice@example.org'), ('alice@example.org')")
    lease = await project.begin()
    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await conn.execute("CREATE UNIQUE INDEX u ON people (email)")
    await steps.fail(lease, f"{caught.value}\n{postgres.wording(caught.value)}. Mend it.")
    await outbox.deliver("prod")
    sent = channels.slack.bodies[0]["text"]
    assert sent.count('could not create unique index "u"') == 2
    assert "⟨detail in the report⟩. Mend it." in sent
    assert "alice" not in sent
    assert ((await ledger.deploy(conn, lease.deploy)).failure or "").count("alice") == 2


# ---------------------------------------------------------------- what it may not disturb


async def test_a_deploy_succeeds_whatever_becomes_of_its_alert(project, monkeypatch):
    async def broken(conn: Conn, target: str, states: frozenset[str]) -> frozenset[str]:
        await conn.execute(f"SELECT 1/0, {len(states)}")
        raise AssertionError(target)

    monkeypatch.setattr(ledger, "open_alerts", broken)
    project.write(1, *TABLE)
    await project.deploy()
    assert await project.fetch("SELECT state FROM airlock.deploy") == [("succeeded",)]
    headline = "SUCCEEDED – prod, deploy 1"
    assert await project.fetch("SELECT body->>'headline' FROM airlock.alert") == [(headline,)]


async def test_whoever_strands_is_told_though_the_services_env_file_cannot_be_read(
    project, channels
):
    project.write(1, *TABLE)
    lease = await project.begin()
    (project.root / "service.env").write_bytes(b"X=\xff\xfe")
    with (project.root / "airlock.toml").open("a", encoding="utf-8") as file:
        file.write('[targets.prod.service]\nenv_file = "service.env"\n')
    await steps.strand(lease, "it does not go back")
    await outbox.deliver("prod")
    assert "Error: it does not go back" in channels.slack.bodies[0]["text"]


async def test_an_alert_that_this_version_cannot_read_waits_and_holds_up_no_other(
    project, channels, caplog
):
    await failed(project)
    await project.execute(
        "INSERT INTO airlock.alert (dedup_key, body)"
        """ VALUES ('x', '{"headline": "h", "target": "prod", "deploy": null, "state": "new"}')"""
    )
    await failed(project)
    await outbox.deliver("prod")
    seen: list[str] = []
    await outbox.announce("prod", lambda alert: seen.append(alert.state))
    assert (channels.states, seen) == (["failed"] * 2, ["failed"] * 2)
    assert "Alert 2 cannot be read by this version" in caplog.text
    waiting = "SELECT id FROM airlock.alert WHERE delivered_at IS NULL"
    assert await project.fetch(waiting) == [(2,)]


async def test_a_deploy_succeeds_whatever_becomes_of_old_snapshots(project, monkeypatch):
    async def broken(target: object) -> tuple[str, ...]:
        raise KeyError(target)

    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    monkeypatch.setattr(snapshot, "retain", broken)
    lease = await project.deploy()
    assert (await steps.read_report(project.target, lease.deploy)).deploy.state == "succeeded"


async def test_a_question_is_asked_whatever_becomes_of_its_alert(project, conn, monkeypatch):
    lease = await project.begin()

    async def broken(conn: Conn, *_: object) -> None:
        await conn.execute("SELECT 1/0")

    monkeypatch.setattr(ledger, "enqueue_alert", broken)
    async with conn.transaction():
        await outbox.approval_wanted(conn, lease)
        await ledger.note(conn, lease, run_url="http://prefect/runs/1")
    assert (await ledger.deploy(conn, lease.deploy)).run_url


async def test_an_outcome_that_is_not_committed_has_no_alert(project, conn, monkeypatch):
    lease = await project.begin()

    async def cut_off(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(ledger, "enqueue_alert", cut_off)
    with pytest.raises(asyncio.CancelledError):
        await steps.fail(lease, "it is wrong")
    assert (await ledger.deploy(conn, lease.deploy)).state == "planned"


async def test_the_loop_goes_on_whatever_is_out_of_reach(project, channels, monkeypatch, caplog):
    await failed(project)
    with (project.root / "airlock.toml").open("a", encoding="utf-8") as file:
        file.write('[targets.other]\ndatabase_url_env = "OTHER_URL"\n')
    monkeypatch.setenv("OTHER_URL", "postgresql://owner:s3cr3t@127.0.0.1:1/none")
    await outbox.deliver_all()
    assert len(channels.told) == 1
    assert "The outbox of other was not emptied: Transient" in caplog.text
    assert "s3cr3t" not in caplog.text
    monkeypatch.setenv(settings.CONFIG_VARIABLE, "/nowhere/airlock.toml")
    await outbox.deliver_all()
    assert "No outbox was looked at: Refused" in caplog.text


async def test_events_are_handed_out_once_without_any_channel(project):
    seen: list[str] = []
    await outbox.announce("prod", lambda alert: seen.append(alert.event))
    await failed(project)
    for _ in range(2):
        await outbox.announce("prod", lambda alert: seen.append(alert.event))
    await outbox.deliver("prod")
    await outbox.announce("prod", lambda alert: seen.append(alert.event))
    assert seen == ["airlock.deploy.failed"]


async def test_an_event_that_somebody_else_hands_out_right_now_is_left_to_them(project, conn):
    await failed(project)
    seen: list[str] = []
    (queued,) = await ledger.unannounced(conn)
    async with conn.transaction():
        assert await ledger.claim_event(conn, queued.id)
        second = asyncio.create_task(
            outbox.announce("prod", lambda alert: seen.append(alert.event))
        )
        await asyncio.sleep(0.2)
    await second
    assert seen == []


async def test_an_event_that_could_not_be_emitted_is_emitted_by_the_next_one(project):
    def broken(alert: object) -> None:
        raise RuntimeError(alert)

    await failed(project)
    with pytest.raises(RuntimeError):
        await outbox.announce("prod", broken)
    seen: list[str] = []
    await outbox.announce("prod", lambda alert: seen.append(alert.event))
    assert seen == ["airlock.deploy.failed"]


async def test_a_target_that_hangs_does_not_stop_the_loop(project, conn, monkeypatch, caplog):
    await failed(project)
    monkeypatch.setattr(outbox, "TARGET_S", 0.3)
    async with conn.transaction():
        await conn.execute("LOCK TABLE airlock.alert")
        await asyncio.wait_for(outbox.deliver_all(), PATIENCE_S)
    assert "The outbox of prod was not emptied: TimeoutError" in caplog.text


async def test_a_ledger_of_an_older_airlock_is_read_and_left_alone(project, channels):
    async with connect(project.url) as conn:
        await conn.execute(postgres.query("ledger_1"))
        await conn.execute(
            "INSERT INTO airlock.deploy (target, requester, reason, request, holder, fence)"
            " VALUES ('prod', '', '', '{}', 'x', 1)"
        )
        body = '{"headline": "REFUSED", "target": "prod", "deploy": 1, "state": "failed"}'
        await conn.execute(
            "INSERT INTO airlock.alert (deploy, dedup_key, body) VALUES (1, 'k', $1)", body
        )
        assert await outbox.deliver("prod") == ()
        assert len(await letters.outstanding(conn, project.target)) == 3
        assert channels.slack.received == []
        await ledger.ensure(conn)
    await outbox.deliver("prod")
    assert channels.told == ["REFUSED"]


async def test_an_undo_upgrades_an_older_ledger_whose_outbox_its_alert_goes_to(project, conn):
    await conn.execute(postgres.query("ledger_1"))
    await conn.execute(
        "INSERT INTO airlock.deploy (target, requester, reason, request, holder, fence)"
        " VALUES ('prod', '', '', '{}', 'x', 1)"
    )
    await steps.reopen(project.target)
    assert await ledger.version(conn) == ledger.VERSION


# ---------------------------------------------------------------- on the command line


async def airlock(*arguments: str) -> tuple[int, str]:
    """The command line in a thread of its own: exit status, what it printed."""

    def run() -> tuple[int, str]:
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr(sys, "argv", ["airlock", *arguments])
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0), out.getvalue()
        return 0, out.getvalue()

    return await asyncio.to_thread(run)


async def test_deliver_says_what_was_sent_and_what_waits_and_why(project, channels):
    assert await airlock("deliver", "prod") == (0, "prod: nothing waits\n")
    channels.slack.status = 500
    await failed(project)
    status, out = await airlock("deliver")
    assert status == 0
    title = "REFUSED – prod was not touched, still on an empty schema"
    assert f"prod: webhook took: {title}\n" in out
    assert f"prod: slack has not: {title} (HTTP status 500, tried 1 times); again in " in out
    status, out = await airlock("status", "prod")
    assert "1 alert delivery waits: slack: HTTP status 500" in out
    found = json.loads((await airlock("status", "prod", "--json"))[1])[0]
    assert (found["alerts_waiting"], found["last_alert_error"]) == (1, "slack: HTTP status 500")
    channels.slack.status = 200
    assert "slack took" in (await airlock("deliver", "prod", "--force"))[1]
    assert "alerts wait" not in (await airlock("status", "prod"))[1]


async def test_a_target_out_of_reach_is_a_line_and_no_failure(project, monkeypatch):
    monkeypatch.setenv("PROD_URL", "postgresql://owner:s3cr3t@127.0.0.1:1/none")
    status, out = await airlock("deliver")
    assert (status, "s3cr3t" in out, out.startswith("prod: connecting to")) == (0, False, True)
