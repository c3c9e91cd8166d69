"""Hold production's catalogue against the rehearsed one."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.catalogue import SchemaDiff
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=600,
    cache_policy=NO_CACHE,
    task_run_name="verify_schema {lease.target}",
)
async def verify_schema(lease: Lease) -> SchemaDiff:
    """Compare production with the rehearsal. Seconds; reads only."""
    return await deploy.verify_schema(lease)
