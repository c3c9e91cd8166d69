"""The name of the run that is under way, once more is known than its parameters."""

from __future__ import annotations

from prefect import get_client, get_run_logger
from prefect.runtime import flow_run


async def name_run(name: str) -> None:
    """Rename this run. A name is a courtesy: a server that is away does not stop a deploy."""
    try:
        async with get_client() as client:
            await client.update_flow_run(flow_run.id, name=name)
    except Exception as error:  # noqa: BLE001 – see above
        get_run_logger().warning("The run keeps its first name: %s", error)
