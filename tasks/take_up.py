"""Take over what a dead runner left unfinished."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import recovery, settings
from airlock.recovery import Taken
from airlock.request import DeployRequest
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="take_up {target}",
)
async def take_up(
    target: str, wanted: DeployRequest | None = None, *, flow_run: str | None = None
) -> Taken | None:
    """The unfinished deploy and which way it goes on; None where there is none. Seconds."""
    return await recovery.take_up(settings.target(target), wanted, flow_run=flow_run)
