"""Whoever may start a run, and so whoever may approve, wants the worker to run something else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airlock import server, settings
from flows.runtime import Runtime, prefect_runtime
from flows.runtime.api import JOB_TEMPLATE
from flows.runtime.command import WORK_POOL
from tests.conftest import create_database, drop_database

PATIENCE_S = 120
BY = "who may start runs and approve"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
CONFIG = """
[targets.prod]
database_url_env = "PROD_DATABASE_URL"
[targets.staging]
database_url_env = "PROD_DATABASE_URL"
[targets.silent]
database_url_env = "SILENT_DATABASE_URL"
"""
# A flow of somebody else, each line of which leaves a trace.
MODULE = """
from pathlib import Path
from prefect import flow
Path({trace!r}).touch()
def hook(flow, flow_run, state):
    Path({trace!r}).touch()
@flow(name="drift", on_crashed=[hook], on_cancellation=[hook])
def planted(target: str = ""):
    Path({trace!r}).touch()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server with its worker, and what an attack would leave."""

    http: httpx.AsyncClient
    runtime: Runtime
    trace: Path
    module: Path

    @property
    def touching(self) -> dict[str, Any]:
        """Job variables for a shell."""
        planted = {"LD_PRELOAD": "/nonexistent.so", "PYTHONPATH": str(self.module.parent)}
        return {"command": f"touch {self.trace}", "env": planted, "working_dir": "/tmp"}  # noqa: S108

    @property
    def pulling(self) -> list[dict[str, Any]]:
        """Steps of a deployment for a shell."""
        step = "prefect.deployments.steps.run_shell_script"
        return [{step: {"script": f"touch {self.trace}"}}]

    async def asked(self, method: str, where: str, **body: Any) -> Any:
        answer = await self.http.request(method, where, json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def deployment(self, title: str = "drift/nightly") -> dict[str, Any]:
        return await self.asked("GET", f"/deployments/name/{title}")

    async def start(self, deployment: str, **more: Any) -> str:
        body = {"parameters": {"target": "prod"}, **more}
        made = await self.asked("POST", f"/deployments/{deployment}/create_flow_run", **body)
        return made["id"]

    async def reaches(self, run: str, *types: str) -> dict[str, Any]:
        """The run's state, once it is of one of these types."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                state = (await self.asked("GET", f"/flow_runs/{run}"))["state"]
                if state["type"] in types:
                    return state
                await asyncio.sleep(0.1)

    async def ends_as(self, run: str, name: str, *, saying: str = "") -> None:
        """The worker has taken it, it ended so, and nothing else was run."""
        state = await self.reaches(run, *ENDED)
        assert state["name"] == name, state
        assert saying in (state["message"] or "")
        assert not self.trace.exists()

    async def process_of(self, run: str) -> psutil.Process:
        """The process of a run that waits for a database that says nothing."""
        assert self.runtime.worker_pid is not None
        worker = psutil.Process(self.runtime.worker_pid)
        await self.reaches(run, "RUNNING")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for child in worker.children(recursive=True):
                    if child.environ().get("PREFECT__FLOW_RUN_ID") == run:
                        return child
                await asyncio.sleep(0.1)


@asynccontextmanager
async def silence() -> AsyncIterator[int]:
    """The port of a server that takes connections and says nothing."""
    held: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    for writer in held:
        writer.close()


@pytest.fixture(scope="module")
async def worker(
    pg: server.Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runtime]:
    root = tmp_path_factory.mktemp("runs")
    (root / "migrations").mkdir()
    (root / "airlock.toml").write_text(CONFIG, encoding="utf-8")
    database = await create_database(pg)
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        port = await stack.enter_async_context(silence())
        patch.setenv(settings.CONFIG_VARIABLE, str(root / "airlock.toml"))
        patch.setenv("PROD_DATABASE_URL", database.url)
        patch.setenv("SILENT_DATABASE_URL", f"postgresql://owner@127.0.0.1:{port}/nowhere")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        yield await stack.enter_async_context(prefect_runtime(root / "prefect", port=0))
    await drop_database(database)


@pytest.fixture
async def served(worker: Runtime, tmp_path: Path) -> AsyncIterator[Served]:
    """The same server for each attack, its pool and deployment as published."""
    module, trace = tmp_path / "planted.py", tmp_path / "trace"
    module.write_text(MODULE.format(trace=str(trace)), encoding="utf-8")
    async with worker.client() as http:
        made = Served(http=http, runtime=worker, trace=trace, module=module)
        ours = await made.deployment()
        yield made
        await made.asked("PATCH", f"/work_pools/{WORK_POOL}", base_job_template=JOB_TEMPLATE)
        kept = {key: ours[key] for key in ("entrypoint", "path", "pull_steps", "job_variables")}
        await made.asked("PATCH", f"/deployments/{ours['id']}", **kept)


async def open_the_pool(served: Served) -> None:
    """A template that takes whatever a run brings, and brings a command of its own."""
    variables = ("command", "env", "working_dir")
    template = {
        "job_configuration": {
            **{name: f"{{{{ {name} }}}}" for name in variables},
            "command": f"touch {served.trace}",
        },
        "variables": {"type": "object", "properties": {name: {} for name in variables}},
    }
    await served.asked("PATCH", f"/work_pools/{WORK_POOL}", base_job_template=template)


@pytest.mark.attack(by=BY, tries="a command in the job variables of a run")
async def test_the_server_takes_no_job_variables(served: Served) -> None:
    ours = await served.deployment()
    answer = await served.http.post(
        f"/deployments/{ours['id']}/create_flow_run", json={"job_variables": served.touching}
    )
    assert answer.is_client_error, answer.text


@pytest.mark.attack(by=BY, tries="a pool whose template has a command and takes job variables")
async def test_a_changed_pool_changes_nothing_about_what_is_run(served: Served) -> None:
    await open_the_pool(served)
    ours = await served.deployment()
    run = await served.start(ours["id"], job_variables=served.touching)
    await served.ends_as(run, "NoDrift")


@pytest.mark.attack(by=BY, tries="a command in the job variables of a deployment")
async def test_job_variables_of_a_deployment_are_not_followed(served: Served) -> None:
    await open_the_pool(served)
    ours = await served.deployment()
    await served.asked("PATCH", f"/deployments/{ours['id']}", job_variables=served.touching)
    await served.ends_as(await served.start(ours["id"]), "NoDrift")


@pytest.mark.attack(by=BY, tries="an automation that starts a deployment with a command")
async def test_job_variables_of_an_automation_are_not_followed(served: Served) -> None:
    await open_the_pool(served)
    ours, event = await served.deployment(), "planted.event"
    action = {
        "type": "run-deployment",
        "source": "selected",
        "deployment_id": ours["id"],
        "parameters": {"target": "prod"},
        "job_variables": served.touching,
    }
    trigger = {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1}
    body = {"name": "planted", "trigger": trigger, "actions": [action]}
    made = await served.asked("POST", "/automations/", **body)
    before = {run["id"] for run in await runs_of(served, ours)}
    resource = {"prefect.resource.id": "planted"}
    sent = {"occurred": "2026-01-01T00:00:00Z", "event": event, "resource": resource}
    async with asyncio.timeout(PATIENCE_S):
        while not (new := [r for r in await runs_of(served, ours) if r["id"] not in before]):
            answer = await served.http.post("/events", json=[{**sent, "id": str(uuid.uuid4())}])
            answer.raise_for_status()
            await asyncio.sleep(1)
    await served.asked("DELETE", f"/automations/{made['id']}")
    await served.ends_as(new[0]["id"], "NoDrift")


@pytest.mark.attack(by=BY, tries="a deployment of their own with pull steps, in our pool")
async def test_a_foreign_deployment_is_refused_and_its_steps_are_not_run(served: Served) -> None:
    flow = await served.asked("POST", "/flows/", name="planted")
    made = await served.asked(
        "POST",
        "/deployments/",
        name="planted",
        flow_id=flow["id"],
        work_pool_name=WORK_POOL,
        entrypoint=f"{served.module}:planted",
        pull_steps=served.pulling,
        path=str(served.module.parent),
    )
    said = "has no deployment planted/planted"
    await served.ends_as(await served.start(made["id"]), "Refused", saying=said)


@pytest.mark.attack(by=BY, tries="a flow of their own under a name of ours")
async def test_a_deployment_that_only_sounds_like_ours_is_refused(served: Served) -> None:
    ours = await served.deployment()
    made = await served.asked(
        "POST",
        "/deployments/",
        name="every-minute",
        flow_id=ours["flow_id"],
        work_pool_name=WORK_POOL,
        entrypoint=f"{served.module}:planted",
    )
    said = "has no deployment drift/every-minute"
    await served.ends_as(await served.start(made["id"]), "Refused", saying=said)


@pytest.mark.attack(by=BY, tries="another entrypoint, path and steps for a deployment of ours")
async def test_a_changed_deployment_of_ours_still_runs_what_is_ours(served: Served) -> None:
    ours = await served.deployment()
    await repoint(served, ours)
    await served.ends_as(await served.start(ours["id"]), "NoDrift")


@pytest.mark.attack(by=BY, tries="deploy/prod for another target, past its approval")
async def test_a_deployment_is_for_its_own_target(served: Served) -> None:
    ours = await served.deployment("deploy/prod")
    run = await served.start(ours["id"], parameters={"target": "staging", "dry_run": True})
    said = "This deployment is for target prod, and the run asks for 'staging'"
    await served.ends_as(run, "Refused", saying=said)


@pytest.mark.attack(by=BY, tries="a hook that a worker loads when a run crashes")
async def test_no_hook_is_loaded_when_a_run_crashes(served: Served) -> None:
    ours = await served.deployment()
    run = await served.start(ours["id"], parameters={"target": "silent"})
    process = await served.process_of(run)
    await repoint(served, ours)
    process.kill()
    await served.ends_as(run, "Crashed")
    await a_later_run_ends(served)


@pytest.mark.attack(by=BY, tries="a hook that a worker loads when a run is cancelled")
async def test_no_hook_is_loaded_when_a_run_is_cancelled(served: Served) -> None:
    ours = await served.deployment()
    run = await served.start(ours["id"], parameters={"target": "silent"})
    await served.process_of(run)
    await repoint(served, ours)
    await cancel(served, run)
    await served.reaches(run, *ENDED)
    await a_later_run_ends(served)


@pytest.mark.attack(by=BY, tries="another process's number as that of a run, and Cancel")
async def test_cancel_ends_no_process_but_the_runs_own(served: Served) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # noqa: ASYNC220
    try:
        ours = await served.deployment()
        run = await served.start(ours["id"], parameters={"target": "silent"})
        own = await served.process_of(run)
        for number in (str(victim.pid), f"localhost:{victim.pid}"):
            await served.asked("PATCH", f"/flow_runs/{run}", infrastructure_pid=number)
        await cancel(served, run)
        await served.reaches(run, *ENDED)
        await asyncio.to_thread(psutil.wait_procs, [own], timeout=PATIENCE_S)
        assert not own.is_running()
        await a_later_run_ends(served)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


async def repoint(served: Served, ours: dict[str, Any]) -> None:
    await served.asked(
        "PATCH",
        f"/deployments/{ours['id']}",
        entrypoint=f"{served.module}:planted",
        path=str(served.module.parent),
        pull_steps=served.pulling,
    )


async def cancel(served: Served, run: str) -> None:
    state = {"type": "CANCELLING", "name": "Cancelling"}
    await served.asked("POST", f"/flow_runs/{run}/set_state", state=state)


async def a_later_run_ends(served: Served) -> None:
    """Whatever the worker does about an earlier one it has done by then, or would be doing."""
    ours = await served.deployment()
    await served.ends_as(await served.start(ours["id"]), "NoDrift")


async def runs_of(served: Served, ours: dict[str, Any]) -> list[dict[str, Any]]:
    return await served.asked(
        "POST", "/flow_runs/filter", deployments={"id": {"any_": [ours["id"]]}}
    )
