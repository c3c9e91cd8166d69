"""The schedule that looks for dead runners each minute, on while a deploy is open.

A deploy switches it on; the run that finds nothing open any more switches it off. As for a run's
name, a server that is away changes nothing about the deploy.
"""

from __future__ import annotations

import asyncio

from prefect import get_client, get_run_logger
from prefect.exceptions import ObjectNotFound

from flows.automations import DEPLOYMENT

AWAY_S = 10.0


async def on() -> None:
    """Look each minute from now on."""
    await _switch(active=True)


async def off() -> None:
    """Look no more, until a deploy is opened."""
    await _switch(active=False)


async def _switch(*, active: bool) -> None:
    try:
        async with asyncio.timeout(AWAY_S), get_client() as client:
            found = await client.read_deployment_by_name(DEPLOYMENT)
            for schedule in found.schedules:
                if schedule.active != active:
                    await client.update_deployment_schedule(found.id, schedule.id, active=active)
    except ObjectNotFound:
        return  # a server without deployments: whoever started it looks after it
    except Exception as error:  # noqa: BLE001 – see above
        said = str(error) or type(error).__name__
        get_run_logger().warning("The schedule of %s was not switched: %s", DEPLOYMENT, said)
