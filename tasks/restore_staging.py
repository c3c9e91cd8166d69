"""Choose or take the snapshot, and make the database that staging will be."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.ledger import Lease
from airlock.snapshot import Snapshot
from tasks.policy import is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=21600,
    cache_policy=NO_CACHE,
    task_run_name="restore_staging {lease.target}",
)
async def restore_staging(lease: Lease) -> Snapshot:
    """Ready the snapshot and an empty database. Minutes at most; the database is made anew."""
    return await refresh.choose_snapshot(lease)
