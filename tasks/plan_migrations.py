"""Read the folder and the ledger, and open the deploy."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from airlock.request import DeployRequest
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="plan {request.target}",
)
async def plan_migrations(request: DeployRequest, *, flow_run: str | None = None) -> Lease | None:
    """Plan and open a deploy; None when there is nothing to do. Seconds; safe to repeat."""
    return await deploy.open_deploy(request, flow_run=flow_run)
