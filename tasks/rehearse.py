"""Run the plan on the restored snapshot, there and back and there again."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from airlock.rehearsal import Rehearsal
from tasks.policy import BACKFILL_S, is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=BACKFILL_S,
    cache_policy=NO_CACHE,
    task_run_name="rehearse {lease.target}",
)
async def rehearse(lease: Lease) -> Rehearsal:
    """Try the plan on a restored copy. Minutes; the clone is dropped and rebuilt."""
    return await deploy.rehearse(lease)
