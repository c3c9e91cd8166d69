"""Hand what was measured to Prometheus and OpenTelemetry, where the target asks for it."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from airlock import deploy, metrics, settings, tracing
from airlock.ledger import Lease


@task(timeout_seconds=60, cache_policy=NO_CACHE, task_run_name="write_metrics {lease.target}")
async def write_metrics(lease: Lease) -> None:
    """The numbers of the target, and the spans of the deploy. What cannot be sent only warns."""
    target = settings.target(lease.target)
    await metrics.publish(target)
    if tracing.is_wanted():
        found = await deploy.read_report(target, lease.deploy)
        await asyncio.to_thread(tracing.export, found)
