"""Write that production goes back."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=60,
    cache_policy=NO_CACHE,
    task_run_name="start_rollback {lease.target}",
)
async def start_rollback(lease: Lease, failure: str, *, cancelled: bool = False) -> None:
    """Write that the way back begins, and put it into the outbox. Written twice it is told once."""
    await deploy.start_rollback(lease, failure, cancelled=cancelled)
