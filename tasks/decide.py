"""Write what a person decided."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import deploy
from airlock.approval import Approval, Decision
from airlock.ledger import Lease
from tasks.policy import is_transient


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="decide {lease.target}",
)
async def decide(lease: Lease, decision: Decision, *, name: str = "", reason: str = "") -> Approval:
    """Write the answer into the ledger. Seconds; the first one stands."""
    return await deploy.decide(lease, decision, name=name, reason=reason)
