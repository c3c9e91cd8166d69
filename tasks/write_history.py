"""Leave the history of a target where people look: as an artifact of the run."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from airlock import dora, settings
from tasks.policy import artifact_key, is_transient


@task(
    retries=2,
    retry_delay_seconds=1,
    retry_condition_fn=is_transient,
    timeout_seconds=120,
    cache_policy=NO_CACHE,
    task_run_name="write_history {target}",
)
async def write_history(target: str) -> str:
    """How often, how fast and how well is deployed, in one line; all of it is an artifact."""
    history = await dora.read(settings.target(target))
    said = ", ".join(f"{each.name.lower()} {each.value}" for each in history.dora.measures)
    await acreate_markdown_artifact(
        key=artifact_key("history", target),
        markdown=dora.markdown(history),
        description=said,
    )
    return said
