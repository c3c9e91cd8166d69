"""Put staging's own database in its place again."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.health import HealthVerdict
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=3600,
    cache_policy=NO_CACHE,
    task_run_name="swap_back {lease.target}",
)
async def swap_back(lease: Lease, failure: str) -> HealthVerdict | None:
    """Undo a refresh, however far it came. Looks first at which database serves."""
    return await refresh.swap_back(lease, failure)
