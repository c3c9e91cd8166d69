"""Plan for the schema that production has now."""

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
    task_run_name="plan_again {lease.target}",
)
async def plan_again(lease: Lease) -> bool:
    """Whether it changed since the rehearsal. Seconds; safe to repeat."""
    return await deploy.plan_again(lease)
