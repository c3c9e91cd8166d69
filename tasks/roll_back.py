"""Take production back to before the deploy."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.deploy import Rollback
from airlock.ledger import Lease
from tasks.policy import BACKFILL_S, is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=BACKFILL_S,
    cache_policy=NO_CACHE,
    task_run_name="roll_back {lease.target}",
)
async def roll_back(lease: Lease, failure: str) -> Rollback:
    """Undo what the ledger says was done, newest first. What is undone already is skipped."""
    return await deploy.roll_back(lease, failure)
