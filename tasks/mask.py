"""Fill the build database with production's rows, masked on their way."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.ledger import Lease
from airlock.replacement import MaskedCopy
from tasks.policy import is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=21600,
    cache_policy=NO_CACHE,
    task_run_name="mask {lease.target}",
)
async def mask(lease: Lease) -> MaskedCopy:
    """Copy, mask and check. Minutes to hours; a second try begins with an empty database."""
    return await refresh.mask(lease)
