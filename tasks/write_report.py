"""Leave the deploy's report where people look: as artifacts of the run."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from airlock import deploy, report, settings
from airlock.ledger import Lease
from tasks.policy import artifact_key


@task(
    # Prefect's client asks a busy server again by itself. One that is away shows no report; it
    # stays in the ledger.
    timeout_seconds=45,
    cache_policy=NO_CACHE,
    task_run_name="write_report {lease.target}",
)
async def write_report(lease: Lease) -> str:
    """The headline; the whole report and the table of effects are artifacts of the run."""
    found = await deploy.read_report(settings.target(lease.target), lease.deploy)
    headline = found.deploy.headline
    await acreate_markdown_artifact(
        key=artifact_key(found.deploy.kind, lease.target),
        markdown=report.markdown(found, pictures=True),
        description=headline,
    )
    if effects := report.effects(found):
        await acreate_table_artifact(
            key=artifact_key("migrations", lease.target),
            table=effects,
            description=f"{headline}. Each statement as it was on the clone.",
        )
    return headline
