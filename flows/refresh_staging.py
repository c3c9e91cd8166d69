"""A refresh: staging becomes a masked copy of production, or stays as it is."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed

from airlock import lock, refresh, settings
from airlock.errors import LeaseLost, Refused, Transient
from airlock.request import RefreshRequest
from flows import form, watch
from flows.forward import refresh_forwards
from flows.interrupt import Interrupted, listening
from flows.recover import finish
from flows.retry import refuse_if_outdated
from flows.undo import carry_out, taken_over, undo_refresh
from tasks.plan_refresh import plan_refresh
from tasks.take_up import take_up

State = Any  # Prefect's State is generic in what it carries; ours carry nothing
Fresh = Annotated[
    bool,
    form.shown(
        "Fresh snapshot",
        "Take a snapshot of the source now, even where a young one is there.",
    ),
]


@flow(name="refresh-staging", flow_run_name="refresh {target}", retries=0)
async def refresh_staging(
    target: form.TargetName,
    fresh_snapshot: Fresh = False,
    reason: form.Reason = "",
    requester: form.Requester = "",
) -> State:
    """Replace a target's database by a masked copy of the one that its settings name.

    Masked rows come into a database that only its owner and the target's own role can reach; it is
    checked and migrated there, and then the two change places in one transaction. If the service is
    unhealthy on the copy, they change back.
    """
    request = RefreshRequest(
        target=target, fresh_snapshot=fresh_snapshot, reason=reason, requester=requester
    )
    try:
        refresh.configured(settings.target(target))
        async with listening() as person, AsyncExitStack() as door:
            # The lock goes with the database that is replaced.
            await door.enter_async_context(lock.hold(settings.target(target), regain=False))
            await refuse_if_outdated(target)
            left = await take_up(target, flow_run=str(flow_run.id))
            if left is not None:
                await watch.on()
                await finish(left, door, person)
            async with refresh.alone(settings.target(target)):
                # Not interrupted: what it opened would stay open.
                person.check()
                lease = await plan_refresh(request, flow_run=str(flow_run.id))
                await watch.on()
                return await carry_out(
                    lease, person, lambda: refresh_forwards(lease, door), undo_refresh
                )
    except Interrupted as asked:
        return Cancelled(name="Cancelled", message=f"No refresh of {target} was begun. {asked}")
    except LeaseLost as error:
        return taken_over(error)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))
