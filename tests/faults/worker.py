"""A real Prefect worker of one lane, and the runs that it is given over the API."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flows.runtime.api import client
from flows.runtime.process import process
from tests.faults import engine
from tests.faults.injector import Fault

READY_S = 60.0
END_S = 30.0


class Worker:
    """Started when it is first needed, and again after it was killed."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        # The lane's own, before a stage sets its variables: a worker outlives cases.
        self._environment = dict(os.environ)
        self._stack = AsyncExitStack()
        self._child: asyncio.subprocess.Process | None = None
        self._deployment = ""

    async def close(self) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """It polls its pool. Returns at once where it does already."""
        if self._child is not None and self._child.returncode is None:
            return
        if not self._deployment:
            self._deployment = await self._deployed()
        home = self._folder / "worker"
        home.mkdir(exist_ok=True)
        environment = {
            **self._environment,
            "PREFECT_HOME": str(home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        command = [sys.executable, "-m", "tests.faults.prefect_worker", self._name]
        self._child = await self._stack.enter_async_context(
            process(command, log=self._folder / "worker.log", env=environment, end_s=END_S)
        )

    async def run(
        self, parameters: Mapping[str, Any], *, environment: Mapping[str, str], fault: Fault
    ) -> str:
        """Start a deploy over the API, as its form does; the run's id."""
        await self.ready()
        assert self._child is not None
        armed = replace(fault, worker_pid=self._child.pid)
        variables = {"env": {**environment, engine.VARIABLE: json.dumps(asdict(armed))}}
        async with _api() as http:
            answer = await http.post(
                f"/deployments/{self._deployment}/create_flow_run",
                json={
                    "parameters": dict(parameters),
                    "job_variables": variables,
                    "state": {"type": "SCHEDULED"},
                },
            )
            return answer.raise_for_status().json()["id"]

    async def cancel(self, run: str) -> None:
        """As the Cancel button does."""
        async with _api() as http:
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            (await http.post(f"/flow_runs/{run}/set_state", json=state)).raise_for_status()

    async def state(self, run: str) -> str:
        """How Prefect says that the run is: RUNNING, CRASHED."""
        async with _api() as http:
            return (await http.get(f"/flow_runs/{run}")).raise_for_status().json()["state_type"]

    async def _deployed(self) -> str:
        async with _api() as http:
            pool = {"name": self._name, "type": "process"}
            (await http.post("/work_pools/", json=pool)).raise_for_status()
            flow = (await http.post("/flows/", json={"name": "deploy"})).raise_for_status().json()
            deployment = {
                "name": self._name,
                "flow_id": flow["id"],
                "entrypoint": "flows.deploy.deploy",
                "work_pool_name": self._name,
                "enforce_parameter_schema": False,
            }
            answer = await http.post("/deployments/", json=deployment)
            return answer.raise_for_status().json()["id"]


@asynccontextmanager
async def _api() -> AsyncGenerator[Any]:
    async with client(os.environ["PREFECT_API_URL"]) as http:
        yield http
