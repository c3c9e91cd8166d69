"""Make sure that a run which is started again is not older than the last deploy."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from airlock import recovery, settings
from tasks.policy import is_transient


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=60,
    cache_policy=NO_CACHE,
    task_run_name="check_retry {target}",
)
async def check_retry(target: str, flow_run: str, age_s: float) -> None:
    """Refuse an old request over a newer deploy. Reads only."""
    await recovery.check_retry(settings.target(target), flow_run, age_s)
