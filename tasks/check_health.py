"""Decide whether the new instance is healthy."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.health import HealthVerdict
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=1,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=900,
    cache_policy=NO_CACHE,
    task_run_name="check_health {lease.target}",
)
async def check_health(lease: Lease) -> HealthVerdict | None:
    """Watch the new instance until it is believed. Reads only."""
    return await deploy.check_health(lease)
