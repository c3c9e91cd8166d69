"""What the run that is under way is called, where it can be found, and the end of a dead one."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Crashed
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


async def close_run(run_id: str | None, what: str) -> None:
    """End the run of a runner that is gone: Prefect keeps it, and the target's queue, for ever.

    As for a name, a server that does not know the run changes nothing about what follows.
    what: becomes of the deploy.
    """
    if run_id in (None, str(flow_run.id)):
        return  # our own: a run that was started again
    try:
        async with get_client() as client:
            run = await client.read_flow_run(UUID(run_id))
            if run.state is not None and not run.state.is_final():
                ended = Crashed(message=f"Its process is gone; {what}.")
                await client.set_flow_run_state(run.id, ended, force=True)
    except Exception as error:  # noqa: BLE001 – see above
        get_run_logger().warning("Run %s was not closed: %s", run_id, error)
