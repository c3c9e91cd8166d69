"""The Prefect server and worker that the demo, `make serve` and these tests run on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter, LogFilterFlowRunId

from airlock.errors import Refused
from flows.runtime import (
    API_URL_FILE,
    Runtime,
    auth,
    client,
    prefect_runtime,
    prepared,
)
from tests.patience import until


@flow
async def says_something() -> None:
    core = logging.getLogger("airlock.test")
    core.warning("the core speaks")


async def messages_of(run: UUID, wanted: str) -> list[str]:
    """Log lines of one run; they reach the server some seconds late, in batches."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    lines: list[str] = []

    async def has_come() -> bool:
        lines[:] = [line.message for line in await client.read_logs(log_filter=only)]
        return wanted in lines

    async with get_client() as client:
        await until(has_come, every_s=0.1)
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
    for file in (folder / API_URL_FILE, folder / "server.log", *folder.glob("prefect.db*")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert (folder / API_URL_FILE).read_text(encoding="utf-8").strip() == prefect_server.api_url


async def test_a_server_that_was_started_after_a_rotation_refuses_the_old_auth_string(
    tmp_path: Path,
) -> None:
    old = auth.auth_string(tmp_path)
    auth.rotate(tmp_path)
    async with prefect_runtime(tmp_path, port=0, worker=False) as started:
        async with client(started.api_url, old) as http:
            answer = await http.get("/admin/version")
            assert answer.status_code == httpx.codes.UNAUTHORIZED
        async with started.client() as http:
            assert (await http.get("/admin/version")).is_success


def test_only_its_owner_may_read_the_prepared_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".airlock").mkdir()
    monkeypatch.setattr(prepared, "ROOT", tmp_path)
    prepared.keep(tmp_path / "prefect.db")
    assert prepared.copy_to(tmp_path / "copy.db")
    (kept,) = (tmp_path / ".airlock" / "cache").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to make a folder of another user")
@pytest.mark.parametrize("there", [True, False])
def test_the_prepared_database_is_not_kept_in_a_checkout_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    checkout, state_dir = tmp_path / "checkout", tmp_path / "state" / "prefect"
    state_dir.mkdir(parents=True)
    checkout.mkdir()
    if there:
        (checkout / ".airlock").mkdir()
        shutil.chown(checkout / ".airlock", "nobody")
    before = sorted(checkout.rglob("*"))
    monkeypatch.setattr(prepared, "ROOT", checkout)
    prepared.keep(state_dir / "prefect.db")
    assert prepared.copy_to(state_dir / "copy.db")
    assert sorted(checkout.rglob("*")) == before


async def test_the_page_of_another_site_reads_nothing_through_the_browser(
    prefect_server: Runtime,
) -> None:
    ours = prefect_server.ui_url
    async with prefect_server.client() as http:
        for origin in (ours, ours.replace("127.0.0.1", "localhost"), "https://elsewhere.example"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = await http.options("/deployments/", headers=asked)
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (None if "elsewhere" in origin else origin)


@pytest.mark.parametrize("kind", [{}, {"Content-Type": "text/plain"}], ids=["typeless", "text"])
async def test_the_page_of_another_site_starts_nothing_through_the_browser(
    prefect_server: Runtime, kind: dict[str, str]
) -> None:
    """Such a POST is sent without asking first; the page hears nothing, and need not."""
    flow_of_theirs = json.dumps({"name": "elsewhere"}).encode()
    sent = {"Origin": "https://elsewhere.example", **kind}
    async with httpx.AsyncClient(base_url=prefect_server.api_url, trust_env=False) as browser:
        answer = await browser.post("/flows/", content=flow_of_theirs, headers=sent)
    assert answer.status_code == httpx.codes.FORBIDDEN
    async with prefect_server.client() as http:
        there = (await http.post("/flows/filter", json={})).raise_for_status().json()
    assert "elsewhere" not in {each["name"] for each in there}
