"""Hold a target's schema against the one that its last deploy left."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from airlock import drift, settings
from airlock.drift import DriftReport
from tasks.policy import is_transient


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    timeout_seconds=600,
    cache_policy=NO_CACHE,
    task_run_name="detect_drift {target}",
)
async def detect_drift(target: str) -> DriftReport:
    """Compare one target with its ledger, and put what is new into its outbox. Seconds."""
    chosen = settings.target(target)
    report = await drift.look(chosen)
    await drift.tell(chosen, report, run_url=flow_run.ui_url)
    return report
