"""Taking over what a dead runner left: who is gone, what goes on, and what is done again."""

from __future__ import annotations

import pytest

from airlock import deploy as steps
from airlock import holder, ledger, lock, recovery, sessions, snapshot
from airlock.errors import Refused
from airlock.ledger import Deploy, Lease
from airlock.request import DeployRequest
from tests.people import connect
from tests.postgres.conftest import Project

ONE = ("CREATE TABLE a (id int);", "DROP TABLE a;")
TWO = ("ALTER TABLE a ADD COLUMN b int;", "ALTER TABLE a DROP COLUMN b;")
WANTED = DeployRequest(target="prod", requester="somebody else")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    # Twice of it is the moment.
    monkeypatch.setattr(lock, "HEARTBEAT_S", 1)


async def cut_off(project: Project, dead: str) -> None:
    await project.execute(f"UPDATE airlock.deploy SET holder = '{dead}'")


async def opened(project: Project) -> Lease:
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    return lease


async def newest(project: Project) -> Deploy:
    async with connect(project.url) as conn:
        found = await ledger.last(conn)
        assert found is not None
        return found


async def test_nothing_is_taken_from_a_runner_that_lives(project: Project):
    assert await recovery.take_up(project.target) is None  # nobody was here yet
    project.write(1, *ONE)
    await opened(project)
    assert await recovery.take_up(project.target) is None


async def test_what_was_untouched_is_taken_over_at_once_when_its_process_has_ended(
    project: Project, dead: str
):
    project.write(1, *ONE)
    lease = await opened(project)
    await cut_off(project, dead)
    assert (await newest(project)).is_cut_off
    taken = await recovery.take_up(project.target, flow_run="ours")
    assert taken is not None
    assert taken.remedy.way == "back"
    assert taken.lease.fence > lease.fence
    row = await newest(project)
    assert (row.holder, row.flow_run) == (holder.name(), "ours")
    said = await project.fetch("SELECT detail FROM airlock.event WHERE step = 'cut_off'")
    assert [dead in str(line) for (line,) in said] == [True]


async def test_a_silent_runner_that_may_live_is_given_another_moment(
    project: Project, patient: None
):
    project.write(1, *ONE)
    lease = await opened(project)
    silent = "UPDATE airlock.deploy SET heartbeat_at = clock_timestamp() - interval '40 s'"
    await project.execute(silent)
    async with lock.heartbeat(project.target, lease):
        assert await recovery.take_up(project.target) is None
    await project.execute(silent)
    assert await recovery.take_up(project.target) is not None


async def test_whoever_did_not_hear_that_they_took_it_takes_it_again(project: Project, dead: str):
    project.write(1, *ONE)
    await opened(project)
    await cut_off(project, dead)
    assert await recovery.take_up(project.target, flow_run="ours") is not None
    assert await recovery.take_up(project.target, flow_run="another") is None
    again = await recovery.take_up(project.target, flow_run="ours")
    assert again is not None
    assert again.remedy.way == "back"


async def test_a_session_that_changes_production_is_a_sign_of_life(project: Project):
    lease = await project.begin()
    await project.execute(
        "UPDATE airlock.deploy SET heartbeat_at = clock_timestamp() - interval '5 min'"
    )
    assert (await newest(project)).is_cut_off
    async with connect(project.url, purpose=sessions.apply_name(lease)):
        assert not (await newest(project)).is_cut_off
    earlier = Lease(target="prod", deploy=lease.deploy, fence=lease.fence - 1)
    async with connect(project.url, purpose=sessions.apply_name(earlier)):
        assert (await newest(project)).is_cut_off


# ---------------------------------------------------------------- the same deploy again


async def test_the_same_request_goes_on_whoever_asks(project: Project, dead: str):
    project.write(1, *ONE)
    lease = await opened(project)
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await cut_off(project, dead)
    taken = await recovery.take_up(project.target, WANTED)
    assert taken is not None
    assert (taken.same, taken.continues, taken.remedy.way) == (True, True, "forwards")
    before = await newest(project)
    await steps.take_snapshot(taken.lease)
    await steps.rehearse(taken.lease)
    after = await newest(project)
    assert (after.snapshot, after.rehearsal) == (before.snapshot, before.rehearsal)


@pytest.mark.parametrize(
    "change",
    ["another request", "an edited file", "one file more", "another schema", "an hour later"],
)
async def test_what_is_no_more_the_same_does_not_go_on(project: Project, dead: str, change: str):
    project.write(1, *ONE)
    await opened(project)
    await cut_off(project, dead)
    wanted = WANTED
    match change:
        case "another request":
            wanted = DeployRequest(target="prod", dry_run=True)
        case "an edited file":
            project.write(1, "CREATE TABLE a (id bigint);", "DROP TABLE a;")
        case "one file more":
            project.write(2, *TWO)
        case "another schema":
            await project.execute("CREATE TABLE by_hand (id int)")
        case _:
            await project.execute(
                "UPDATE airlock.deploy SET heartbeat_at = clock_timestamp() - interval '2 h'"
            )
    taken = await recovery.take_up(project.target, wanted)
    assert taken is not None
    assert (taken.continues, taken.remedy.way) == (False, "back")


@pytest.mark.parametrize("mended", [False, True])
async def test_half_of_it_goes_on_with_the_same_files_and_back_with_mended_ones(
    project: Project, dead: str, mended: bool
):
    project.write(1, *ONE)
    project.write(2, *TWO)
    lease = await opened(project)
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    async with connect(project.url) as conn:
        await ledger.advance(conn, lease, "applying")
    await project.execute("CREATE TABLE a (id int)")
    await project.execute(
        "INSERT INTO airlock.migration (deploy, version, name, checksum, forward_sql, reverse_sql,"
        " state, position, segments_done, applied_xid, oldest_xid)"
        f" SELECT {lease.deploy}, 1, 'step', '{project.migrations()[0].checksum}',"
        f" '{ONE[0]}', '{ONE[1]}', 'applied', 1, 1, 1, 1"
    )
    await cut_off(project, dead)
    if mended:
        project.write(2, "ALTER TABLE a ADD COLUMN c int;", "ALTER TABLE a DROP COLUMN c;")
    taken = await recovery.take_up(project.target, WANTED)
    assert taken is not None
    assert taken.continues is not mended
    assert taken.remedy.way == ("back" if mended else "forwards")
    if not mended:
        await steps.apply_plan(taken.lease)
        assert [row.state for row in await project.rows(taken.lease)] == ["applied"] * 2


async def test_a_snapshot_that_is_gone_is_taken_and_rehearsed_again(project: Project, dead: str):
    project.write(1, *ONE)
    lease = await opened(project)
    first = await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await cut_off(project, dead)
    taken = await recovery.take_up(project.target, WANTED)
    assert taken is not None
    first.path.rename(first.path.with_name(".gone-by-hand"))
    second = await steps.take_snapshot(taken.lease)
    assert second.id != first.id
    assert (await newest(project)).state == "snapshotted"
    assert (await steps.rehearse(taken.lease)).snapshot == second.id


async def test_what_the_runner_left_on_this_machine_is_swept(project: Project):
    left = project.target.snapshots_dir / ".tmp-of-a-dead-run"
    left.mkdir(parents=True)
    await recovery.clear_up(project.target)
    assert not left.exists()
    assert snapshot.list_snapshots(project.target) == ()


@pytest.mark.parametrize(
    ("runs", "flow_run", "age_s", "is_older"),
    [
        ((), "retried", 3600, False),
        (("another",), "retried", 3600, True),
        (("another",), "retried", 0, False),
        (("retried",), "retried", 3600, False),
        (("retried", "another"), "retried", 0, True),
        (("another", "retried"), "retried", 3600, False),
    ],
)
async def test_a_run_that_is_started_again_is_older_by_its_own_deploys_or_else_by_its_age(
    project: Project, runs: tuple[str, ...], flow_run: str, age_s: float, is_older: bool
):
    for number, run in enumerate(runs, 1):
        project.write(number, f"CREATE TABLE a{number} (id int);", f"DROP TABLE a{number};")
        lease = await steps.open_deploy(DeployRequest(target="prod"), flow_run=run)
        assert lease is not None
        # Whoever brought it to an end.
        await steps.link_run(lease, "recover", None)
        await steps.fail(lease, "enough was seen")
    if is_older:
        with pytest.raises(Refused, match="Start a new one"):
            await recovery.check_retry(project.target, flow_run, age_s)
    else:
        await recovery.check_retry(project.target, flow_run, age_s)
