"""What a request may change about a deploy: the drift check, the lock budget, who is asked."""

from __future__ import annotations

import json

import pytest

from airlock import deploy as steps
from airlock import report
from airlock.approval import Approval
from airlock.errors import LeaseLost, Refused, Transient
from airlock.request import DeployRequest
from tests.people import connect
from tests.postgres.conftest import Project

A = ("CREATE TABLE a (id int);", "DROP TABLE a;")
B = ("CREATE TABLE b (id int);", "DROP TABLE b;")
COLUMN = ("ALTER TABLE a ADD COLUMN b int;", "ALTER TABLE a DROP COLUMN b;")


async def opened(**request: object):
    lease = await steps.open_deploy(DeployRequest.model_validate({"target": "prod"} | request))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    return lease


async def test_a_drift_that_was_left_out_becomes_the_schema_before(project: Project):
    project.write(1, *A)
    await project.deploy()
    project.write(2, *B)
    await project.execute("ALTER TABLE a ADD COLUMN by_hand int")
    found = await project.catalogue()
    with pytest.raises(Refused, match="by_hand"):
        await steps.open_deploy(DeployRequest(target="prod", skip=("smoke",)))
    lease = await project.deploy(skip=("drift",), reason="known to us")
    read = await steps.read_report(project.target, lease.deploy)
    assert read.deploy.schema_before == found.fingerprint
    planned = next(each for each in read.events if each.step == "plan_migrations")
    assert "drift left out on request:\n+ column public.a.by_hand" in planned.detail
    assert "| Left out on request | drift – known to us |" in report.markdown(read)
    # The next one starts from there, and back is there.
    assert (await steps.open_deploy(DeployRequest(target="prod"))) is None
    again, _ = await steps.reopen(project.target)
    await steps.roll_back(again, "not wanted")
    assert await project.catalogue() == found


@pytest.mark.parametrize("end", ["dry run", "failure"])
async def test_a_deploy_that_touched_nothing_accepts_no_drift(project: Project, end: str):
    project.write(1, *A)
    await project.deploy()
    project.write(2, *B)
    await project.execute("ALTER TABLE a ADD COLUMN by_hand int")
    lease = await opened(skip=("drift",), reason="known to us")
    await (steps.stop_dry_run(lease) if end == "dry run" else steps.fail(lease, "no disk"))
    with pytest.raises(Refused, match="by_hand"):
        await steps.open_deploy(DeployRequest(target="prod"))


async def test_the_lock_budget_of_the_request_goes_before_that_of_the_target(project: Project):
    project.write(1, *A)
    await project.deploy()
    project.write(2, *COLUMN)
    lease = await opened(lock_timeout_ms=25)
    await steps.ask(lease)
    async with connect(project.url) as other, other.transaction():
        await other.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        with pytest.raises(Transient, match="3 tries of 25 ms"):
            await steps.apply_plan(lease)


async def test_the_question_stands_in_the_ledger_once_and_so_does_the_answer(project: Project):
    project.write(1, *A)
    lease = await opened(ask=True)
    asked = await steps.ask(lease)
    assert (asked.decision, asked.required_because) == (
        None,
        "whoever started it wanted to be asked",
    )
    assert await steps.ask(lease) == asked
    assert "APPROVAL WANTED" in (await _row(project, lease)).headline
    first = await steps.decide(lease, "approved", name="Grace", reason="seen")
    # A decision once written stands.
    assert await steps.decide(lease, "rejected", name="Ada") == first
    assert await steps.ask(lease) == first
    row = await _row(project, lease)
    assert (row.state, json.loads(row.approval or "")["name"]) == ("approved", "Grace")
    events = await project.fetch(
        "SELECT phase, detail FROM airlock.event WHERE step = 'approve' ORDER BY sequence"
    )
    assert events == [
        ("intent", "whoever started it wanted to be asked"),
        ("done", "Approved by Grace: seen"),
    ]
    alerts = await project.fetch("SELECT body->>'state' FROM airlock.alert")
    assert alerts == [("approval_wanted",)]
    read = await steps.read_report(project.target, lease.deploy)
    assert "| Approved by | Grace – seen |" in report.markdown(read)


async def test_a_target_that_never_asks_says_so_in_its_report(project: Project):
    project.write(1, *A)
    lease = await opened()
    assert (await steps.ask(lease)).decision == "not needed"
    read = await steps.read_report(project.target, lease.deploy)
    assert "| Approval | not needed: policy none |" in report.markdown(read)


async def test_who_has_lost_the_deploy_can_neither_ask_nor_decide(project: Project):
    project.write(1, *A)
    lease = await opened(ask=True)
    await steps.ask(lease)
    await project.take_over(lease)
    with pytest.raises(LeaseLost):
        await steps.decide(lease, "approved", name="Grace")
    with pytest.raises(LeaseLost):
        await steps.check_lease(lease)
    assert json.loads((await _row(project, lease)).approval or "")["decision"] is None


async def test_an_approval_is_not_for_a_schema_that_changed_since(project: Project):
    project.write(1, *A)
    lease = await opened(ask=True)
    await steps.ask(lease)
    await steps.decide(lease, "approved", name="Grace")
    assert await steps.plan_again(lease) is False
    await project.execute("CREATE TABLE by_hand (id int)")
    assert await steps.plan_again(lease) is True
    assert await steps.plan_again(lease) is True, "as a second try after a lost answer finds it"
    row = await _row(project, lease)
    assert (row.state, row.schema_before) == ("planned", (await project.catalogue()).fingerprint)
    with pytest.raises(Refused, match="rehearsed with other files or on another schema"):
        await steps.apply_plan(lease)
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    asked: Approval = await steps.ask(lease)
    assert asked.decision is None
    assert "+ table public.by_hand" in asked.meanwhile


async def test_the_run_of_a_deploy_is_in_its_report(project: Project):
    project.write(1, *A)
    lease = await opened(ask=True)
    with pytest.raises(Refused, match="waits for a decision"):
        await steps.asked(project.target)
    await steps.link_run(lease, "the-run", "http://127.0.0.1:4200/runs/flow-run/the-run")
    await steps.ask(lease)
    assert await steps.asked(project.target) == (lease.deploy, "the-run")
    read = await steps.read_report(project.target, lease.deploy)
    assert "http://127.0.0.1:4200/runs/flow-run/the-run" in report.markdown(read)


async def test_a_deploy_whose_runner_is_gone_waits_for_nobody_and_says_how_to_end_it(
    project: Project,
):
    project.write(1, *A)
    lease = await opened(ask=True)
    await steps.link_run(lease, "the-run", None)
    await steps.ask(lease)
    await project.execute(
        "UPDATE airlock.deploy SET heartbeat_at = heartbeat_at - interval '5 minutes'"
    )
    row = await _row(project, lease)
    assert row.is_cut_off
    assert row.headline.startswith("CUT OFF – rehearsed")
    assert row.next_command == "airlock recover prod"
    with pytest.raises(Refused, match="airlock recover prod"):
        await steps.asked(project.target)
    taken_over, last = await steps.reopen(project.target)
    assert last.is_cut_off
    assert not (await _row(project, taken_over)).is_cut_off


async def _row(project: Project, lease):
    return (await steps.read_report(project.target, lease.deploy)).deploy
