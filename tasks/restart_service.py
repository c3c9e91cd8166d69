"""Bring the new release up before the old one drains."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from airlock.service import Restart
from tasks.policy import is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=900,
    cache_policy=NO_CACHE,
    task_run_name="restart_service {lease.target}",
)
async def restart_service(lease: Lease) -> Restart | None:
    """Replace the running instance. Looks at what is running first."""
    return await deploy.restart_service(lease)
