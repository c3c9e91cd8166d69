"""What the run that is under way is called, and where it can be found."""

from __future__ import annotations

from prefect import get_client, get_run_logger
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from airlock import deploy
from airlock.ledger import Lease


async def name_run(name: str) -> None:
    """Rename this run. A name is a courtesy: a server that is away does not stop a deploy."""
    try:
        async with get_client() as client:
            await client.update_flow_run(flow_run.id, name=name)
    except Exception as error:  # noqa: BLE001 – see above
        get_run_logger().warning("The run keeps its first name: %s", error)


async def link_run(lease: Lease) -> None:
    """Store this run in the ledger, for whoever comes from an alert or the command line."""
    run = str(flow_run.id)
    await deploy.link_run(lease, run, url_for("flow-run", run))
