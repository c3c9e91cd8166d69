"""Leave what was found of drift where people look: as an artifact of the run."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from airlock import drift
from airlock.drift import DriftReport
from tasks.policy import artifact_key


@task(timeout_seconds=120, cache_policy=NO_CACHE, task_run_name="show_drift {report.target}")
async def show_drift(report: DriftReport) -> None:
    """One artifact per target, ``drift-<target>``; no drift is said as well."""
    await acreate_markdown_artifact(
        key=artifact_key("drift", report.target),
        markdown=drift.markdown(report),
        description=report.headline,
    )
