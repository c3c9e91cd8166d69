"""Bring the masked copy to what this checkout has, and make it harmless."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.ledger import Lease
from tasks.policy import BACKFILL_S, is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=BACKFILL_S,
    cache_policy=NO_CACHE,
    task_run_name="migrate_copy {lease.target}",
)
async def migrate_copy(lease: Lease) -> tuple[str, ...]:
    """Apply the pending migrations to the copy. Reads its ledger first."""
    return await refresh.migrate_copy(lease)
