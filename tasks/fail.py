"""Close a deploy that touched nothing."""

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
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="fail {lease.target}",
)
async def fail(lease: Lease, failure: str, *, cancelled: bool = False) -> None:
    """Write why it failed, and the alert. Seconds; safe to repeat."""
    return await deploy.fail(lease, failure, cancelled=cancelled)
