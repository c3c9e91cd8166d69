"""Leave what a person decides on where they look: as an artifact of the run."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import get_current_settings

from airlock import deploy, report, settings
from airlock.ledger import Lease
from tasks.policy import artifact_key


@task(
    retries=2,
    retry_delay_seconds=1,
    timeout_seconds=120,
    cache_policy=NO_CACHE,
    task_run_name="show_rehearsal {lease.target}",
)
async def show_rehearsal(lease: Lease) -> str:
    """The question as markdown, with a link to the artifact that has the whole report."""
    question = await deploy.read_question(lease)
    found = await deploy.read_report(settings.target(lease.target), lease.deploy)
    artifact = await acreate_markdown_artifact(
        key=artifact_key("rehearsal", lease.target),
        markdown=report.markdown(found, pictures=True),
        description=found.deploy.headline,
    )
    ui_url = get_current_settings().ui_url
    if not ui_url:
        return question
    return f"{question}\n\n[The whole rehearsal]({ui_url}/artifacts/artifact/{artifact})"
