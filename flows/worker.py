"""The worker: it takes runs from the work pool, and starts our own entry point for each of them.

Whoever may start a run could otherwise say what is executed here: by job variables of a run, a
deployment or an automation, by the pool's template, and by the entrypoint whose hooks a worker
loads when a run crashes or is cancelled. This worker asks the server for none of these.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.abc
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.settings import get_current_settings
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from flows.runtime.command import WORK_POOL, run_command

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.runner._flow_run_executor import FlowRunExecutionResult
    from prefect.runner._process_manager import ProcessHandle
    from prefect.states import State


class Configuration(ProcessJobConfiguration):
    """What is started for each run. Nothing of it comes from the server."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **_: Any) -> Self:
        """The same for every run, whatever its pool, deployment and job variables say."""
        configuration = cls(command=shlex.join(run_command()), working_dir=Path.cwd())
        configuration.prepare_for_flow_run(flow_run)
        return configuration


class NoHooks:
    """Our flows have no hooks; to look for them would load the flow from where the server says."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None: ...

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None: ...


class Worker(ProcessWorker):
    """A process worker that follows no command, environment, path or entrypoint of the server."""

    job_configuration = Configuration

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "airlock"  # beside Prefect's own, which has the key of its type

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> ProcessWorkerResult:
        """Start the process of one run, in this worker's own environment; wait for its end."""
        async with FlowRunExecutorContext() as context:
            starter = EngineCommandStarter(
                command=configuration.command,
                cwd=configuration.working_dir,
                env=configuration.env,
                stream_output=configuration.stream_output,
                control_channel=context.control_channel,
            )
            executor = context.create_executor(
                flow_run, starter, propose_submitting=False, hook_runner=NoHooks()
            )
            ended: list[FlowRunExecutionResult | None] = []

            async def execute(*, task_status: anyio.abc.TaskStatus[ProcessHandle]) -> None:
                ended.append(await executor.submit(task_status=task_status))

            async with anyio.create_task_group() as group:
                handle = await group.start(execute)
                task_status.started(handle.pid)
        (result,) = ended
        if result is None or result.status_code is None:
            raise RuntimeError("The process of the run was not started.")
        return ProcessWorkerResult(status_code=result.status_code, identifier=str(handle.pid))

    # The parent class keeps a runner for flows that are handed over in this process, which nobody
    # does here.
    async def __aenter__(self) -> Self:
        await BaseWorker.__aenter__(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        await BaseWorker.__aexit__(self, *error)


async def work(worker: Worker) -> None:
    """Take runs until a signal. A second one does not wait for those that run."""
    # Within the loop, whose own handler they pass the signal on to.
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    with suppress(asyncio.CancelledError):
        await worker.start()


def parser() -> argparse.ArgumentParser:
    """Its options, each with its default."""
    made = argparse.ArgumentParser(prog="python -m flows.worker", description=__doc__)
    name = socket.gethostname()
    made.add_argument("--name", default=name, help="shown in the UI; by default the host's")
    made.add_argument("--pool", default=WORK_POOL, help="%(default)s by default")
    return made


def main() -> int:
    given = parser().parse_args()
    if not get_current_settings().api.auth_string:
        print(  # noqa: T201
            "airlock: PREFECT_API_AUTH_STRING is not set, and no server of ours answers without. "
            "Set it to the auth string that the server was started with.",
            file=sys.stderr,
        )
        return os.EX_CONFIG
    worker = Worker(work_pool_name=given.pool, name=given.name, create_pool_if_not_found=False)
    asyncio.run(work(worker))
    return 0


if __name__ == "__main__":
    sys.exit(main())
