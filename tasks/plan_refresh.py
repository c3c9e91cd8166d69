"""Make sure that staging may be replaced, and open the refresh."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import refresh
from airlock.ledger import Lease
from airlock.request import RefreshRequest
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=300,
    cache_policy=NO_CACHE,
    task_run_name="plan_refresh {request.target}",
)
async def plan_refresh(request: RefreshRequest, *, flow_run: str | None = None) -> Lease:
    """Open a refresh in the ledger. Seconds; safe to repeat."""
    return await refresh.open_refresh(request, flow_run=flow_run)
