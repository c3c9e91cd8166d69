"""What production is held to: the lock budget, who may be ended, what the rehearsal did not see."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from airlock import binaries, lock_budget, postgres, report, restraint, traffic
from airlock import deploy as steps
from airlock.apply import Runner
from airlock.blockers import Blockers
from airlock.effects import Effect, LockMode, StatementEffects
from airlock.errors import Broken, Refused, Transient
from airlock.lookout import conflicting, look
from airlock.postgres import Conn
from airlock.request import DeployRequest
from airlock.settings import Budget
from tests.conftest import TEST_SETTINGS, create_database, start_server
from tests.patience import until
from tests.people import connect
from tests.postgres.conftest import BUDGET, Project

DEALS = (
    "CREATE TABLE deals (id int PRIMARY KEY, value int, note text);"
    "INSERT INTO deals SELECT n, n, 'deal ' || n FROM generate_series(1, 50) AS n;"
)
ALTER = ("ALTER TABLE deals ADD COLUMN score int;", "ALTER TABLE deals DROP COLUMN score;")
REWRITE = (
    "ALTER TABLE deals ALTER value TYPE bigint;",
    "ALTER TABLE deals ALTER value TYPE int;",
)


async def opened(project: Project, **request: object):
    lease = await steps.open_deploy(DeployRequest.model_validate({"target": "prod"} | request))
    assert lease is not None
    await steps.take_snapshot(lease)
    return lease


def settle(project: Project, old: str, new: str) -> None:
    path = project.root / "airlock.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


async def journal(project: Project, step: str) -> list[tuple[object, ...]]:
    return await project.fetch(
        "SELECT phase, detail FROM airlock.event WHERE step = $1 ORDER BY sequence", step
    )


# ---------------------------------------------------------------- the lock budget


async def test_who_was_kept_waiting_too_long_on_the_clone_stops_the_deploy_before_production(
    project: Project,
):
    await project.execute(DEALS)
    settle(project, "max_block_ms = 10000", "max_block_ms = 30")
    project.write(1, f"{ALTER[0]}\nSELECT pg_sleep(0.05);", ALTER[1], name="score")
    before = (await project.catalogue()).fingerprint
    lease = await opened(project)
    # A second try, or another runner, reads the same answer out of the ledger.
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await steps.rehearse(lease)
        said = str(caught.value)
        assert "max_block_ms of 30:\n- 001_score.sql, line 6: ALTER TABLE deals ADD COLUMN" in said
        assert "public.deals AccessExclusiveLock for" in said
        assert "ms, reads and writes wait" in said
        assert "airlock lint migrations/001_score.sql" in said
        assert 'airlock deploy prod --skip lock_budget --reason "…"' in said
    assert (await project.catalogue()).fingerprint == before
    read = await steps.read_report(project.target, lease.deploy)
    assert read.deploy.state == "rehearsed"
    assert read.rehearsal is not None
    await steps.fail(lease, said)
    left_out = await project.deploy(skip=("lock_budget",), reason="nobody is awake")
    read = await steps.read_report(project.target, left_out.deploy)
    text = report.markdown(read)
    assert "| Left out on request | lock_budget – nobody is awake |" in text
    assert "| Blocked longest, on the clone | 001_score.sql, line 6: ALTER TABLE deals ADD" in text


async def test_light_traffic_on_the_clone_says_how_long_it_waited(project: Project):
    await project.execute(DEALS)
    settle(project, '"DEV_URL"', '"DEV_URL"\ntraffic_sessions = 2')
    project.write(1, f"{ALTER[0]}\nSELECT pg_sleep(2);", ALTER[1], name="score")
    project.write(2, "CREATE TABLE new (id int);", "DROP TABLE new;")
    lease = await opened(project)
    score, new = (await steps.rehearse(lease)).migrations
    assert score.waited_ms is not None
    assert score.waited_ms > 100
    assert new.waited_ms is not None
    read = await steps.read_report(project.target, lease.deploy)
    assert "ms, while 001_score was applied" in report.markdown(read)


async def test_light_traffic_waits_for_longer_than_a_call_of_ours_may_take(
    project: Project, monkeypatch
):
    await project.execute(DEALS)
    monkeypatch.setattr(postgres, "CALL_S", 1.0)
    async with (
        connect(project.url, limit_s=60) as holder,
        traffic.going(project.url, ["public.deals"], 1) as load,
    ):
        assert load is not None
        await holder.execute("BEGIN; LOCK deals")
        await until(lambda: holder.fetchval(IS_KEPT_WAITING))
        await asyncio.sleep(2)
        await holder.execute("ROLLBACK")
        assert load.take() > 1500


# Whether somebody else waits for a lock in this database.
IS_KEPT_WAITING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database())"
)

HARMLESS = {
    "a table that the plan makes": ("CREATE TABLE new (id int);\nDROP TABLE new;", "SELECT 1;"),
    "an index that is built concurrently": (
        "CREATE INDEX CONCURRENTLY i ON deals (slow(id));",
        "DROP INDEX CONCURRENTLY i;",
    ),
    "rows that are written": (
        "UPDATE deals SET value = value WHERE slow(id) > 49;",
        "SELECT 1;",
    ),
}


@pytest.mark.parametrize(("forward", "reverse"), HARMLESS.values(), ids=HARMLESS.keys())
async def test_what_blocks_neither_reads_nor_writes_has_no_budget(
    project: Project, forward, reverse
):
    await project.execute(
        f"{DEALS} CREATE FUNCTION slow(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM pg_sleep(0.001); RETURN id; END $$"
    )
    project.write(1, forward, reverse)
    lease = await opened(project)
    rehearsed = await steps.rehearse(lease)
    assert lock_budget.excesses(rehearsed, 40) == ()


# ---------------------------------------------------------------- who stands in the way


@asynccontextmanager
async def reading(url: str, name: str = "theirs", *, busy: bool = False) -> AsyncIterator[Conn]:
    """A session that has read the table in a transaction, and goes on with another statement."""
    async with connect(url, purpose="airlock") as conn:
        await conn.execute(f"SET application_name = '{name}'; BEGIN; SELECT FROM deals")
        going_on = asyncio.create_task(conn.execute("SELECT pg_sleep(60)")) if busy else None
        try:
            yield conn
        finally:
            if going_on is not None:
                going_on.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await going_on


async def apply_first(project: Project, url: str | None = None, **budget: object) -> None:
    lease = await project.begin()
    url = url or project.url
    kept = Budget.model_validate(BUDGET.model_dump() | {"tries": 200, "pause_ms": 20} | budget)
    async with connect(url) as conn:
        work = Runner(url=url, conn=conn, lease=lease, budget=kept)
        await work.forward(project.migrations()[0], position=1)


ENDED = {
    "idle, to be terminated": ("terminate", "idle in transaction", False),
    "at work, to be cancelled": ("cancel", "any", True),
    "at work, to be terminated": ("terminate", "any", True),
}


@pytest.mark.parametrize(("policy", "state", "busy"), ENDED.values(), ids=ENDED.keys())
async def test_who_stands_in_the_way_is_ended_where_the_policy_says_so(
    project: Project, policy, state, busy
):
    await project.execute(DEALS)
    project.write(1, *ALTER)
    async with reading(project.url, busy=busy) as reader:
        await apply_first(project, blockers=policy, blocker_state=state)
        pid = reader.get_server_pid()
    intent, done = await journal(project, "blocker")
    who = f"{policy} process {pid} (owner, theirs, {'active' if busy else 'idle in transaction'}"
    assert intent[0] == "intent"
    assert str(intent[1]).startswith(who)
    assert str(intent[1]).endswith("which holds up 001_step.sql")
    assert done == ("done", f"{intent[1]}: its transaction has ended")


SPARED = {
    "the policy is to wait": ("theirs", False, {}),
    "it is at work": ("theirs", True, {"blockers": "terminate"}),
    "it is a dump": ("pg_dump", False, {"blockers": "terminate"}),
    "it is ours": ("airlock something", True, {"blockers": "cancel", "blocker_state": "any"}),
}


@pytest.mark.parametrize(("name", "busy", "budget"), SPARED.values(), ids=SPARED.keys())
async def test_who_is_not_meant_by_the_policy_is_waited_for(project: Project, name, busy, budget):
    await project.execute(DEALS)
    project.write(1, *ALTER)
    async with reading(project.url, name, busy=busy) as reader:
        with pytest.raises(Transient, match="was not to be had in 5 tries"):
            await apply_first(project, tries=5, **budget)
        assert not reader.is_closed()
        assert await journal(project, "blocker") == []


async def test_who_runs_one_statement_after_another_is_not_taken_for_idle(project: Project):
    await project.execute(DEALS)
    project.write(1, *ALTER)

    async def chat(conn: Conn) -> None:
        while True:
            await conn.execute("SELECT 1")
            await asyncio.sleep(0.005)

    async with reading(project.url) as reader:
        chatting = asyncio.create_task(chat(reader))
        try:
            with pytest.raises(Transient, match="was not to be had in 5 tries"):
                await apply_first(project, tries=5, blockers="terminate")
        finally:
            chatting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await chatting
        assert await journal(project, "blocker") == []


@pytest.fixture
async def theirs(project: Project) -> AsyncIterator[str]:
    """The address of a role that ours may end, and whose state is hidden from it."""
    await project.execute(DEALS)
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute("CREATE ROLE theirs LOGIN; GRANT SELECT ON deals TO theirs")
        await superuser.execute("GRANT pg_signal_backend TO owner")
        yield project.url.replace("owner@", "theirs@")
        await superuser.execute("REVOKE pg_signal_backend FROM owner")
        await superuser.execute("DROP OWNED BY theirs; DROP ROLE theirs")


@pytest.mark.parametrize("same", [True, False])
async def test_who_is_hidden_is_ended_in_the_transaction_that_was_in_the_way_or_not_at_all(
    project: Project, theirs: str, same: bool
):
    lease = await project.begin()
    budget = Budget(blockers="terminate", blocker_state="any")
    async with reading(theirs) as reader, connect(project.url) as ours:
        pid = ours.get_server_pid()
        watch = Blockers(url=project.url, pid=pid, lease=lease, budget=budget, source="x")
        async with watch:
            for _ in range(2):
                async with watch.looking(after_s=0, may_end=True):
                    locking = asyncio.create_task(ours.execute("BEGIN; LOCK deals"))
                    # Whom it has seen it ends before the block is left.
                    await until(lambda: watch._now)
                locking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await locking
                await ours.execute("ROLLBACK")
                if not same:
                    await reader.execute("COMMIT; BEGIN; SELECT FROM deals")
    assert "(theirs, theirs, state hidden" in watch.seen
    assert len(await journal(project, "blocker")) == (2 if same else 0)


async def test_a_role_that_may_not_end_it_says_so_once_and_waits(project: Project):
    await project.execute(DEALS)
    project.write(1, *ALTER)
    async with reading(project.database.superuser_url):
        with pytest.raises(Transient, match="was not to be had in 6 tries"):
            await apply_first(project, tries=6, blockers="terminate", blocker_state="any")
    _, (phase, detail) = await journal(project, "blocker")
    assert phase == "done"
    assert "not allowed to terminate process" in str(detail)
    assert "GRANT pg_signal_backend" in str(detail)


@pytest.fixture
async def vacuumed(project: Project, tmp_path: Path) -> AsyncIterator[Project]:
    """The same project on a server of its own, whose autovacuum works."""
    settings = TEST_SETTINGS | {"autovacuum": "on", "autovacuum_naptime": "1"}
    async with AsyncExitStack() as stack:
        pg = await start_server(stack, binaries.find(), tmp_path / "pg", settings=settings)
        yield replace(project, database=await create_database(pg))


async def test_an_autovacuum_is_passed_without_the_right_to_lower_deadlock_timeout(
    vacuumed: Project, caplog
):
    project = vacuumed
    # A worker that sleeps between two pages for as long as it may.
    await project.execute(
        f"{DEALS} ALTER TABLE deals SET (autovacuum_vacuum_threshold = 0,"
        " autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 1000000,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);"
        "INSERT INTO deals SELECT n, n, repeat('x', 1000) FROM generate_series(51, 2000) AS n;"
        "DELETE FROM deals WHERE id > 50"
    )
    project.write(1, *ALTER)
    async with connect(project.database.superuser_url) as superuser:
        await _until_vacuumed(superuser)
        # The index has no age, and so the greatest there is.
        names = ("public.deals", "public.deals_pkey")
        found = await look(superuser, dict.fromkeys(names, LockMode.ACCESS_EXCLUSIVE))
        assert not any(each.is_wraparound for each in found)
    caplog.set_level("INFO", "airlock.patience")
    await apply_first(project, tries=60, lock_timeout_ms=200)
    assert "waits for process" in caplog.text
    assert "(autovacuum worker" in caplog.text
    assert "The next try waits for 1200 ms" in caplog.text
    assert len(await project.fetch("SELECT FROM airlock.migration")) == 1


async def _until_vacuumed(superuser: Conn) -> None:
    working = (
        "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'deals'::regclass"
        " AND datname = current_database())"
    )
    await until(lambda: superuser.fetchval(working))


# ---------------------------------------------------------------- before the first try


async def test_nothing_is_begun_while_a_dump_holds_what_the_plan_blocks(project: Project):
    await project.execute(DEALS)
    project.write(1, *ALTER)
    lease = await opened(project)
    await steps.rehearse(lease)
    await steps.ask(lease)
    async with reading(project.url, "pg_dump") as dump:
        with pytest.raises(Transient) as caught:
            await steps.apply_plan(lease)
        pid = dump.get_server_pid()
    said = str(caught.value)
    assert f"prod was not begun: process {pid} (owner, pg_dump, idle in transaction" in said
    assert "holds public.deals: a dump. Nothing changed." in said
    assert (await steps.read_report(project.target, lease.deploy)).deploy.state == "approved"
    assert len(await journal(project, "lookout")) == 1
    await steps.apply_plan(lease)
    assert (await steps.read_report(project.target, lease.deploy)).deploy.state == "applied"


async def test_a_dump_of_another_name_is_known_by_its_locks(project: Project):
    await project.execute(DEALS + "".join(f"CREATE TABLE t{n} ();" for n in range(12)))
    project.write(1, *ALTER)
    lease = await opened(project)
    await steps.rehearse(lease)
    await steps.ask(lease)
    async with reading(project.url, "nightly") as dump:
        await dump.execute(
            "DO $$ DECLARE name text; BEGIN FOR name IN SELECT oid::regclass FROM pg_class"
            " WHERE relkind = 'r' AND oid >= 16384"
            " LOOP EXECUTE 'LOCK ' || name || ' IN ACCESS SHARE MODE'; END LOOP; END $$"
        )
        with pytest.raises(Transient, match=r"nightly.* holds public\.deals: a dump"):
            await steps.apply_plan(lease)


async def test_an_old_transaction_is_named_and_left_to_the_tries(
    project: Project, monkeypatch, caplog
):
    monkeypatch.setattr("airlock.lookout.LONG_S", 0.0)
    await project.execute(DEALS)
    project.write(1, *ALTER)
    lease = await opened(project)
    await steps.rehearse(lease)
    await steps.ask(lease)
    caplog.set_level("INFO", "airlock.lookout")
    async with reading(project.url) as reader:
        with pytest.raises(Transient, match="the lock was not to be had in 3 tries"):
            await steps.apply_plan(lease)
        assert f"Before the apply: process {reader.get_server_pid()} (owner, theirs" in caplog.text
    assert (await steps.read_report(project.target, lease.deploy)).deploy.state == "applying"


async def test_the_server_agrees_about_which_modes_conflict(project: Project):
    await project.execute(DEALS)
    found: dict[LockMode, set[LockMode]] = {mode: set() for mode in LockMode}
    async with connect(project.url) as one, connect(project.url) as other:
        for mode in LockMode:
            for second in LockMode:
                async with one.transaction():
                    await one.execute(f"LOCK deals IN {mode.name.replace('_', ' ')} MODE")
                    try:
                        async with other.transaction():
                            words = second.name.replace("_", " ")
                            await other.execute(f"LOCK deals IN {words} MODE NOWAIT")
                    except Exception:  # noqa: BLE001 – its class is the driver's
                        found[mode].add(second)
    assert {mode: set(conflicting(mode)) for mode in LockMode} == found


# ---------------------------------------------------------------- what the rehearsal did not see


def seen(*statements: tuple[int, str, bool]) -> tuple[StatementEffects, ...]:
    """What a clone saw: line and summary of each statement, and whether it rewrote the deals."""
    return tuple(
        StatementEffects(
            line=line,
            statement=summary,
            seconds=0.001,
            wal_bytes=0,
            rows=None,
            effects=(
                Effect(
                    relation="public.deals",
                    lock=LockMode.ACCESS_EXCLUSIVE,
                    held_s=0.001,
                    rewrites=rewrites,
                    scans=False,
                ),
            ),
        )
        for line, summary, rewrites in statements
    )


async def apply_seen(
    project: Project, url: str, rehearsed: dict[str, tuple[StatementEffects, ...]]
) -> None:
    lease = await project.begin()
    async with connect(url) as conn:
        work = Runner(url=url, conn=conn, lease=lease, budget=BUDGET, rehearsed=rehearsed)
        for position, each in enumerate(project.migrations(), 1):
            await work.forward(each, position=position)


async def left_behind(project: Project) -> list[tuple[object, ...]]:
    return await project.fetch(
        "SELECT evtname FROM pg_event_trigger UNION ALL"
        " SELECT proname FROM pg_proc WHERE proname = 'refuse_rewrite'"
    )


async def test_a_rewrite_that_the_rehearsal_did_not_see_is_stopped_before_it_begins(
    project: Project,
):
    await project.execute(DEALS)
    project.write(1, REWRITE[0], REWRITE[1])
    before = (await project.catalogue()).fingerprint
    text = REWRITE[0].rstrip(";")
    with pytest.raises(Broken) as caught:
        await apply_seen(
            project, project.database.superuser_url, {"001_step": seen((6, text, False))}
        )
    said = str(caught.value)
    assert "001_step.sql, line 6: ALTER TABLE deals ALTER value TYPE bigint failed: this" in said
    assert "would rewrite public.deals, 8192 bytes, and the rehearsal saw no rewrite of it" in said
    assert "Run the deploy again" in said
    assert (await project.catalogue()).fingerprint == before
    assert await left_behind(project) == []
    assert await project.fetch("SELECT FROM airlock.migration") == []


async def test_a_rewrite_that_the_rehearsal_saw_is_let_through(project: Project):
    await project.execute(DEALS)
    project.write(1, REWRITE[0], REWRITE[1])
    text = REWRITE[0].rstrip(";")
    await apply_seen(project, project.database.superuser_url, {"001_step": seen((6, text, True))})
    assert await left_behind(project) == []
    assert len(await project.fetch("SELECT FROM airlock.migration")) == 1


async def test_tables_that_the_deploy_has_made_may_be_rewritten(project: Project):
    """Whatever they are called by then, and whoever the file has become."""
    await project.execute(DEALS)
    project.write(1, "CREATE TABLE a (id int);\nCREATE TABLE b (id int);", "DROP TABLE a, b;")
    project.write(
        2,
        "ALTER TABLE a RENAME TO c;\nSET ROLE plain;\nALTER TABLE c ALTER id TYPE bigint;\n"
        "DO $$ BEGIN CREATE TABLE d (id int);\nALTER TABLE d ALTER id TYPE text; END $$;",
        "SELECT 1;",
    )
    rehearsed = {"001_step": seen((6, "x", False)), "002_step": seen((6, "x", False))}
    async with connect(project.database.superuser_url) as superuser:
        await superuser.execute("CREATE ROLE plain SUPERUSER")
        try:
            await apply_seen(project, project.database.superuser_url, rehearsed)
        finally:
            await superuser.execute(
                "REASSIGN OWNED BY plain TO postgres; DROP OWNED BY plain; DROP ROLE plain"
            )
    assert await left_behind(project) == []


async def test_a_deploy_is_held_to_its_own_rehearsal(project: Project, monkeypatch):
    """The snapshot has an empty gate; by the time of the apply somebody has opened it."""
    monkeypatch.setenv("PROD_URL", project.database.superuser_url)
    await project.execute(f"{DEALS} CREATE TABLE gate (id int)")
    project.write(
        1,
        "DO $$ BEGIN IF EXISTS (SELECT FROM gate) THEN ALTER TABLE deals ALTER value TYPE bigint;\n"
        "ELSE ALTER TABLE deals ADD COLUMN score int; END IF; END $$;",
        "ALTER TABLE deals DROP COLUMN score;",
    )
    lease = await opened(project)
    await steps.rehearse(lease)
    await steps.ask(lease)
    await project.execute("INSERT INTO gate VALUES (1)")
    with pytest.raises(Broken, match=r"would rewrite public\.deals"):
        await steps.apply_plan(lease)
    await steps.start_rollback(lease, "it was stopped")
    await steps.roll_back(lease, "it was stopped")
    read = await steps.read_report(project.target, lease.deploy)
    assert read.deploy.state == "rolled_back"


async def test_a_statement_has_a_multiple_of_its_rehearsed_time_and_no_more(
    project: Project, monkeypatch
):
    monkeypatch.setattr(restraint, "AT_LEAST_S", 1)
    await project.execute(DEALS)
    project.write(1, f"{ALTER[0]}\nSELECT pg_sleep(9) FROM deals LIMIT 1;", ALTER[1])
    before = (await project.catalogue()).fingerprint
    rehearsed = seen(
        (6, ALTER[0].rstrip(";"), False), (7, "SELECT pg_sleep(9) FROM deals LIMIT 1", False)
    )
    with pytest.raises(Broken) as caught:
        await apply_seen(project, project.url, {"001_step": rehearsed})
    said = str(caught.value)
    assert re.search(
        r"line 7: SELECT pg_sleep\(9\) FROM deals LIMIT 1 was stopped after [1-8]\.\d s", said
    )
    assert "on the clone it took 0.00 s" in said
    assert (await project.catalogue()).fingerprint == before


LIMITS = """CREATE TABLE seen AS SELECT current_setting('statement_timeout') AS ms;
{own}INSERT INTO seen SELECT current_setting('statement_timeout');
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO seen SELECT current_setting('statement_timeout'); RETURN NULL; END $$;
CREATE TABLE deferred (id int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferred INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION late();
INSERT INTO deferred VALUES (1);"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        # What is not known has the budget's time, and so has what was deferred to the COMMIT.
        ("", ["5060ms", "10s", "10s"]),
        ("SET LOCAL statement_timeout = '7s';\n", ["10s", "7s", "7s"]),
    ],
)
async def test_each_statement_has_its_own_limit(project: Project, own: str, expected):
    project.write(1, LIMITS.format(own=own), "DROP TABLE seen, deferred; DROP FUNCTION late();")
    first = "CREATE TABLE seen AS SELECT current_setting('statement_timeout') AS ms"
    await apply_seen(project, project.url, {"001_step": seen((6, first, False))})
    assert [ms for (ms,) in await project.fetch("SELECT ms FROM seen")] == expected


def test_cancelling_who_runs_nothing_is_refused_as_a_setting():
    with pytest.raises(ValueError, match="does nothing to a session that is idle"):
        Budget(blockers="cancel")
