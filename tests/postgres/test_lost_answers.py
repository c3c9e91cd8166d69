"""Answers that do not come: what happened is read from the ledger, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from airlock import deploy as steps
from airlock import ledger, postgres, rollback
from airlock.apply import Runner
from airlock.errors import Transient
from airlock.request import DeployRequest
from airlock.settings import Budget
from tests.faults.proxy import FAULTS, Fault, Proxy, proxy_to
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.postgres.conftest import Project

FORWARD = "CREATE TABLE one (id int);\nINSERT INTO one VALUES (1);"
SECOND = "INSERT INTO one VALUES (2);"
INDEXED = "CREATE INDEX CONCURRENTLY i ON one (id);"


def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gives up a silent client within a blink instead of a minute."""
    monkeypatch.setitem(postgres.WHEN_GONE, "idle_in_transaction_session_timeout", "300")


async def rehearsed(project: Project) -> ledger.Lease:
    """A deploy of three migrations that may be applied."""
    project.write(1, FORWARD, "DROP TABLE one;")
    project.write(2, SECOND, "DELETE FROM one WHERE id = 2;")
    project.write(3, INDEXED, "DROP INDEX CONCURRENTLY i;")
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    return lease


def reach(project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on production is reached through the proxy, and with little patience."""
    gives_up_soon(monkeypatch)
    monkeypatch.setenv("PROD_URL", proxy.url)
    monkeypatch.setattr(postgres, "CALL_S", 0.5)
    toml = project.root / "airlock.toml"
    # A statement that is too slow for it is not tried again.
    text = toml.read_text().replace("statement_timeout_s = 10", "statement_timeout_s = 0.5")
    toml.write_text(text.replace("prod.budget]", "prod.budget]\nbuild_timeout_s = 1"))


async def until_done(step: Callable[[], Awaitable[object]]) -> None:
    """The step, repeated as the task's policy does."""
    for _ in range(50):
        with contextlib.suppress(Transient):
            await step()
            return
    raise AssertionError("it does not get through")


# The sessions whose messages meet the fault, one after the other, and at which message.
FORWARDS = (
    ("airlock ledger", "^COMMIT", 1),  # that production is touched from now on
    ("airlock apply", "001_step applied.*COMMIT", 0),
    ("airlock apply", "002_step applied.*COMMIT", 0),
    ("airlock apply", "^COMMIT", 0),  # the intent of the index
    ("airlock apply", "^CREATE INDEX CONCURRENTLY", 0),
    ("airlock apply", "^COMMIT", 1),  # its record
    ("airlock ledger", "^COMMIT", 2),  # that all is applied
)
BACKWARDS = (
    ("airlock rollback", "^DROP INDEX CONCURRENTLY", 0),
    ("airlock rollback", "^COMMIT", 1),
    ("airlock rollback", "002_step rolled back.*COMMIT", 0),
    ("airlock rollback", "001_step rolled back.*COMMIT", 0),
)


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_got_no_answer_is_neither_forgotten_nor_done_twice(
    project: Project, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    lease = await rehearsed(project)
    before = (await project.catalogue()).fingerprint
    journal = "SELECT detail FROM airlock.event WHERE step = 'migration' ORDER BY sequence"
    async with proxy_to(project.database.tcp_url) as proxy:

        async def forwards() -> None:
            await steps.apply_plan(lease)

        async def backwards() -> None:
            await rollback.reverse_migrations(project.target, lease, (), catalogue)

        async def struck(step: Callable[[], Awaitable[object]], places) -> None:
            for session, at, skip in places:
                proxy.arm(fault, session=session, at=f"(?s){at}", skip=skip)
                while len(proxy.struck) == 0:
                    with pytest.raises(Transient):
                        await step()
                proxy.struck.clear()
            await until_done(step)

        catalogue = await project.catalogue()
        reach(project, proxy, monkeypatch)
        # Whoever waits in vain takes his second each time.
        some = slice(1, None, 3) if fault == "stall" else slice(None)
        await struck(forwards, FORWARDS[some])
        assert await project.fetch("SELECT id FROM one ORDER BY id") == [(1,), (2,)]
        assert await project.fetch("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
        await struck(backwards, BACKWARDS[some])
    assert (await project.catalogue()).fingerprint == before
    assert [detail for (detail,) in await project.fetch(journal)] == [
        *(f"00{n}_step applied" for n in (1, 2, 3)),
        *(f"00{n}_step rolled back" for n in (3, 2, 1)),
    ]


async def test_a_silent_server_is_given_up_and_said_to_be_silent(project: Project) -> None:
    async with proxy_to(project.database.tcp_url) as proxy, connect(proxy.url) as conn:
        proxy.stall()
        for _ in range(2):
            with pytest.raises(postgres.NoAnswer, match=r"no answer within 0\.2 s"):
                await conn.execute("SELECT 1", timeout=0.2)
        error = postgres.translate(postgres.NoAnswer(conn.silence), "asking")
        assert isinstance(error, Transient)


async def test_a_cancelled_call_to_a_silent_server_ends(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "TIDY_S", 0.2)

    async def ask() -> None:
        async with connect(proxy.url, limit_s=3600) as conn, conn.transaction():
            asked.set()
            await conn.execute("SELECT pg_sleep(3600)")

    async with proxy_to(project.database.tcp_url) as proxy:
        asked = asyncio.Event()
        asking = asyncio.create_task(ask())
        await asked.wait()
        await asyncio.sleep(0.05)
        proxy.stall()
        asking.cancel()
        done, _ = await asyncio.wait([asking], timeout=PATIENCE_S)
    assert done


async def test_a_transaction_of_a_runner_that_stopped_is_ended_by_the_server(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives_up_soon(monkeypatch)
    await project.execute("CREATE TABLE t (id int)")
    async with connect(project.url) as stopped, connect(project.url) as other:
        await stopped.execute("BEGIN; LOCK TABLE t")
        await other.execute("SET lock_timeout = '60s'; INSERT INTO t VALUES (1)")
        with pytest.raises((*postgres.DRIVER_ERRORS, OSError)) as caught:
            await stopped.execute("COMMIT")
    assert isinstance(postgres.translate(caught.value, "it"), Transient)


async def test_the_server_asks_after_clients_that_vanished(project: Project) -> None:
    names = list(postgres.WHEN_GONE)
    sql = "SELECT setting FROM pg_settings WHERE name = $1"
    async with connect(project.database.tcp_url) as conn:
        shown = {name: await conn.fetchval(sql, name) for name in names}
    assert shown == postgres.WHEN_GONE
    address = postgres.with_settings(project.url, {"idle_in_transaction_session_timeout": "0"})
    async with connect(address) as conn:
        assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "0"
        assert await conn.fetchval("SHOW tcp_keepalives_idle") == "0"


async def test_a_statement_that_sets_its_own_limit_is_not_cut_at_the_budgets(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "CALL_S", 1)
    project.write(1, "SET LOCAL statement_timeout = 0;\nSELECT pg_sleep(3.5);", "SELECT 1;")
    lease = await project.begin()
    budget = Budget(statement_timeout_s=1)
    async with connect(project.url) as conn:
        work = Runner(url=project.url, conn=conn, lease=lease, budget=budget)
        await work.forward(project.migrations()[0], position=1)
