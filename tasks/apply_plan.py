"""Run the rehearsed plan on production, up to its contract."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.deploy import Applied
from airlock.ledger import Lease
from tasks.policy import BACKFILL_S, is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=BACKFILL_S,
    cache_policy=NO_CACHE,
    task_run_name="apply_plan {lease.target}",
)
async def apply_plan(lease: Lease) -> Applied:
    """Run the plan, up to its contract. Reads the ledger first and skips what is there."""
    return await deploy.apply_plan(lease)
