"""The worker of one lane: ours, but that a run under test brings its fault and its environment."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Self

from flows import worker

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

COMMAND = f"{sys.executable} -m tests.faults.engine"


class Configuration(worker.Configuration):
    """Of a run's job variables, the environment: our own worker would not look at them."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **more: Any) -> Self:
        found = await super().resolve_for_flow_run(flow_run, **more)
        given = (flow_run.job_variables or {})["env"]
        return found.model_copy(update={"command": COMMAND, "env": {**found.env, **given}})


class Worker(worker.Worker):
    job_configuration = Configuration


if __name__ == "__main__":
    pool = sys.argv[1]
    ours = Worker(work_pool_name=pool, name=pool, create_pool_if_not_found=False)
    asyncio.run(worker.work(ours))
