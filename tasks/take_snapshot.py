"""Back up the target before anything else."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from airlock.snapshot import Snapshot
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=21600,
    cache_policy=NO_CACHE,
    task_run_name="take_snapshot {lease.target}",
)
async def take_snapshot(lease: Lease) -> Snapshot:
    """Back up the target. Minutes; safe to repeat: each try gets its own file."""
    return await deploy.take_snapshot(lease)
