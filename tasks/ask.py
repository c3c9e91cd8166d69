"""Put the question about the rehearsal into the ledger, where somebody is to be asked."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.approval import Approval
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="ask {lease.target}",
)
async def ask(lease: Lease) -> Approval:
    """The question, or the decision that stands. Seconds; a question is asked once."""
    return await deploy.ask(lease)
