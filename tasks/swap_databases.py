"""Put the masked copy in staging's place."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=600,
    cache_policy=NO_CACHE,
    task_run_name="swap_databases {lease.target}",
)
async def swap_databases(lease: Lease) -> None:
    """Swap in one transaction. Seconds; looks first at which database serves."""
    return await refresh.swap_databases(lease)
