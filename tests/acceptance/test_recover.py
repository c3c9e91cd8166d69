"""A runner that is gone leaves a deploy open; recover, or the next deploy, brings it to its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airlock import binaries, ledger
from airlock.ledger import Deploy
from flows.runtime import Runtime
from tests import own, patience
from tests.acceptance.test_deploys import assert_as_before
from tests.gateway import Gateway
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.stage import CHECKOUT, Stage

SLOW = "SELECT pg_catalog.pg_sleep(60) WHERE {};"
SLEEPERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
    " AND datname = current_database()"
)
# The clone calls itself so; production does not.
ON_PRODUCTION_ONLY = "pg_catalog.current_setting('cluster_name') <> 'airlock clone'"
DROP = "ALTER TABLE deals DROP COLUMN IF EXISTS score;"
HANGS = f"ALTER TABLE deals ADD COLUMN score integer;\n{SLOW.format(ON_PRODUCTION_ONLY)}"

Child = asyncio.subprocess.Process


@pytest.fixture
def run(stage: Stage, prefect_server: Runtime) -> Callable[..., Any]:
    """Run a flow in a process of its own, as the command line does; it is killed afterwards."""

    @asynccontextmanager
    async def start(
        flow: str, variables: Mapping[str, str] | None = None, **parameters: Any
    ) -> AsyncIterator[Child]:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows", flow, json.dumps({"target": "prod", **parameters})),
            cwd=CHECKOUT,
            env={**os.environ, **prefect_server.environment, **(variables or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()

    return start


async def until(
    stage: Stage, ready: Callable[[Deploy], bool], *, patience_s: float = PATIENCE_S
) -> Deploy:
    async with asyncio.timeout(patience_s), ledger.connection(stage.target) as conn:
        while True:
            for row in await ledger.recent(conn):
                if ready(row):
                    return row
            await asyncio.sleep(0.02)


async def sleeping(stage: Stage) -> None:
    """Production is in the middle of a migration."""
    asks = f"{SLEEPERS} AND state = 'active' AND application_name LIKE 'airlock apply%'"
    async with connect(stage.superuser_url) as conn:
        await patience.until(lambda: conn.fetchval(asks))


@pytest.fixture
def recover(stage: Stage, flows_report_to_the_server: None) -> Callable[[], Awaitable[Any]]:
    async def once() -> Any:
        from flows.recover import recover as flow

        return await flow("prod", return_state=True)

    return once


@pytest.fixture
def hanging(stage: Stage) -> Stage:
    stage.migration(11, "score", HANGS, DROP)
    return stage


async def test_a_runner_killed_in_the_middle_of_the_apply_is_taken_back_from_the_ledger_alone(
    hanging, run, recover
):
    before = await hanging.world()
    async with run("deploy", release="v2") as child:
        await sleeping(hanging)
        child.kill()
        await child.wait()
        # At once: its process is certainly gone, whatever its heart did.
        state = await recover()
    assert (state.name, state.is_completed()) == ("Recovered", True), state.message
    assert "1 of its 2 migrations are there as a whole, so it goes back" in (
        (await hanging.last()).failure or ""
    )
    assert (await hanging.last()).state == "rolled_back"
    await assert_as_before(hanging, before)
    async with connect(hanging.superuser_url) as conn:
        assert await conn.fetchval(f"{SLEEPERS} AND pid <> pg_backend_pid()") == 0
    assert (await recover()).name == "NothingToRecover"


async def test_the_same_deploy_asked_for_again_goes_on_where_the_ledger_stands(
    stage, run, run_deploy
):
    async with run("deploy", release="v2") as child:
        await until(stage, lambda row: row.state == "rehearsed")
        child.kill()
        await child.wait()
        first = await stage.last()
        state = await run_deploy(release="v2", requester="somebody else")
    assert state.name == "Deployed", state.message
    last = await stage.last()
    assert (last.id, last.snapshot) == (first.id, first.snapshot)
    assert (await stage.health())["release"] == "v2"


async def test_another_deploy_first_closes_what_had_touched_nothing(stage, run, run_deploy):
    async with run("deploy", release="v2") as child:
        await until(stage, lambda row: row.state == "snapshotted")
        child.kill()
        await child.wait()
        state = await run_deploy(release="v1")
    assert state.name == "Deployed", state.message
    async with ledger.connection(stage.target) as conn:
        new, old = await ledger.recent(conn, limit=2)
    assert (new.state, old.state) == ("succeeded", "failed")
    assert "had touched nothing" in (old.failure or "")


async def test_a_run_that_is_asked_to_end_takes_production_back_before_it_ends(hanging, run):
    number = signal.SIGINT
    before = await hanging.world()
    async with run("deploy", release="v2") as child:
        await sleeping(hanging)
        child.send_signal(number)
        await until(hanging, lambda row: row.state == "rolling_back")
        child.send_signal(number)  # impatience changes nothing
        said, _ = await child.communicate()
    assert child.returncode == 2, said.decode()
    assert (await hanging.last()).state == "rolled_back"
    assert f"The run was asked to end ({number.name})" in ((await hanging.last()).failure or "")
    await assert_as_before(hanging, before)


async def test_a_run_of_the_command_line_that_is_cancelled_in_the_ui_takes_production_back(
    hanging, run, prefect_server
):
    before = await hanging.world()
    async with run("deploy", release="v2") as child:
        await sleeping(hanging)
        async with prefect_server.client() as http:
            cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            where = f"/flow_runs/{(await hanging.last()).flow_run}"
            (await http.post(f"{where}/set_state", json=cancel)).raise_for_status()
            said, _ = await child.communicate()
            shown = (await http.get(where)).raise_for_status().json()["state"]
    assert child.returncode == 2, said.decode()
    assert (shown["type"], shown["name"]) == ("CANCELLED", "RolledBack")
    assert "The run was asked to end (Cancel)" in ((await hanging.last()).failure or "")
    await assert_as_before(hanging, before)


async def test_a_run_that_is_asked_to_end_before_production_ends_and_touches_nothing(stage, run):
    before = await stage.world()
    async with run("deploy", release="v2") as child:
        await until(stage, lambda row: row.state == "planned")
        child.terminate()
        said, _ = await child.communicate()
    assert child.returncode == 1, said.decode()
    assert (await stage.last()).state == "failed"
    await assert_as_before(stage, before)


async def test_a_runner_that_lost_its_fence_ends_with_the_programs_that_it_started(
    stage, run, tmp_path
):
    hangs = tmp_path / "bin" / "pg_basebackup"
    hangs.parent.mkdir()
    real = binaries.find(need=("pg_basebackup",)).directory
    for program in real.iterdir():
        if program.name != hangs.name:
            (hangs.parent / program.name).symlink_to(program)
    started = tmp_path / "started"
    hangs.write_text(
        '#!/bin/sh\ncase "$*" in *--version*) exec '
        f'"{real}/pg_basebackup" --version;; esac\necho $$ > "{started}"\nexec sleep 300\n'
    )
    hangs.chmod(0o755)
    async with run("deploy", {"PG_BIN": str(hangs.parent)}, release="v2") as child:
        await patience.until(lambda: started.exists() and started.read_text().strip())
        async with connect(stage.superuser_url) as conn:
            await conn.execute("UPDATE airlock.deploy SET fence = nextval('airlock.fence')")
        said, _ = await child.communicate()
    assert (child.returncode, "TakenOver" in said.decode()) == (3, True), said.decode()
    await patience.until(lambda: own.processes(hangs.parent) == {})
    assert (await stage.last()).state == "planned", "it is the other runner's to say more"


async def test_a_deploy_goes_on_without_prefect_and_says_what_the_ledger_says(
    stage, run, prefect_server
):
    with Gateway(prefect_server.api_url) as gate:
        through = {"PREFECT_API_URL": gate.api_url, "PREFECT_CLIENT_MAX_RETRIES": "0"}
        async with run("deploy", through, release="v2") as child:
            await until(stage, lambda row: row.state == "snapshotted")
            gate.close()
            said, _ = await child.communicate()
    assert child.returncode == 0, said.decode()
    assert "DEPLOYED – prod stands at 010. So says the ledger" in said.decode()
    assert (await stage.health())["release"] == "v2"
