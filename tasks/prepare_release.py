"""Check out and build the code that goes with the plan."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from airlock.release import Release
from tasks.policy import is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=1800,
    cache_policy=NO_CACHE,
    task_run_name="prepare_release {lease.target}",
)
async def prepare_release(lease: Lease) -> Release | None:
    """Check out and build the release. Minutes at most; a finished checkout is used again."""
    return await deploy.prepare_release(lease)
