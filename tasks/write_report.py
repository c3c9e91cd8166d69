"""Leave the deploy's report where people look: as an artifact of the run."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from airlock import deploy, report, settings
from airlock.ledger import Lease


@task(
    retries=2,
    retry_delay_seconds=1,
    timeout_seconds=120,
    cache_policy=NO_CACHE,
    task_run_name="write_report {lease.target}",
)
async def write_report(lease: Lease) -> str:
    """The headline; the whole report is an artifact of the run."""
    found = await deploy.read_report(settings.target(lease.target), lease.deploy)
    headline = found.deploy.headline
    await acreate_markdown_artifact(
        key=f"deploy-{lease.target.lower().replace('_', '-')}",
        markdown=report.markdown(found),
        description=headline,
    )
    return headline
