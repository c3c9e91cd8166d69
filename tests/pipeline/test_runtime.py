"""The Prefect server and worker that the demo, `make serve` and these tests run on."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from airlock.errors import Refused
from flows.runtime import API_URL_FILE, Runtime, environment, prefect_runtime, worker_command


@flow
async def says_something() -> None:
    core = logging.getLogger("airlock.test")
    core.warning("the core speaks")


async def messages_of(run: UUID, wanted: str) -> list[str]:
    """Log lines of one run; they reach the server some seconds late, in batches."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    async with get_client() as client:
        for _ in range(200):
            lines = [line.message for line in await client.read_logs(log_filter=only)]
            if wanted in lines:
                return lines
            await asyncio.sleep(0.1)
        return lines


async def test_a_flow_called_in_a_test_is_a_run_on_the_tests_server(
    prefect_server: Runtime,
) -> None:
    state = await says_something(return_state=True)
    async with get_client() as client:
        assert str(client.api_url).rstrip("/") == prefect_server.api_url
        runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter())
    assert state.state_details.flow_run_id in {run.id for run in runs}


async def test_lines_of_the_core_are_in_the_log_of_the_run() -> None:
    state = await says_something(return_state=True)
    run = state.state_details.flow_run_id
    assert "the core speaks" in await messages_of(run, "the core speaks")


async def test_a_second_server_on_the_same_folder_is_refused(prefect_server: Runtime) -> None:
    with pytest.raises(Refused, match=prefect_server.api_url):
        async with prefect_runtime(prefect_server.state_dir, port=0, worker=False):
            pass


async def test_a_taken_port_is_refused_by_number(prefect_server: Runtime, tmp_path: Path) -> None:
    port = int(prefect_server.ui_url.rpartition(":")[2])
    with pytest.raises(Refused, match=str(port)):
        async with prefect_runtime(tmp_path, port=port, worker=False):
            pass


async def test_only_its_owner_may_read_what_the_server_keeps(prefect_server: Runtime) -> None:
    folder = prefect_server.state_dir
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / API_URL_FILE).stat().st_mode) == 0o600
    assert (folder / API_URL_FILE).read_text(encoding="utf-8").strip() == prefect_server.api_url


def test_the_prefect_of_the_person_who_runs_it_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.com/api")
    monkeypatch.setenv("PREFECT_API_KEY", "theirs")
    ours = environment(tmp_path)
    assert "PREFECT_API_KEY" not in ours
    assert "PREFECT_API_URL" not in ours
    assert ours["PREFECT_HOME"] == str(tmp_path)
    assert ours["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


async def test_a_deployment_started_through_the_api_runs_its_flow_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "airlock.toml"
    config.write_text("[targets.other]\ndatabase_url_env = 'NOT_SET'\n", encoding="utf-8")
    monkeypatch.setenv("AIRLOCK_CONFIG", str(config))
    async with prefect_runtime(tmp_path / "prefect", port=0) as runtime:
        assert runtime.worker_pid is not None
        ours = psutil.Process(runtime.server_pid), psutil.Process(runtime.worker_pid)
        assert ours[1].cmdline()[1:] == worker_command()[1:]
        with runtime.as_current():
            run = await run_deployment("rollback/staging", timeout=60, poll_interval=0.2)
        assert isinstance(run, FlowRun)
        assert run.state is not None
        assert run.state.name == "Refused", run.state
        assert "staging" in (run.state.message or "")
    assert not any(process.is_running() for process in ours)
    assert not (runtime.state_dir / API_URL_FILE).exists()
