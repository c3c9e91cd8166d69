"""Look how far a deploy came."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease, State
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="read_state {lease.target}",
)
async def read_state(lease: Lease) -> State:
    """The state in the ledger, where an answer that was lost may have arrived. Seconds."""
    return await deploy.read_state(lease)
