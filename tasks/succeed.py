"""Close a deploy that went well."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=21600,
    cache_policy=NO_CACHE,
    task_run_name="succeed {lease.target}",
)
async def succeed(lease: Lease) -> None:
    """Write that it succeeded, and the alert; then old snapshots go. Safe to repeat."""
    return await deploy.succeed(lease)
