"""A deploy: snapshot, rehearsal, production, and the way back if the service is unhealthy."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from airlock import lock, settings
from airlock.approval import check_reason
from airlock.errors import LeaseLost, Refused, Transient
from airlock.request import DeployRequest
from flows import form, watch
from flows.forward import deploy_forwards
from flows.interrupt import Interrupted, Person, listening
from flows.naming import close_run
from flows.recover import finish
from flows.retry import refuse_if_outdated
from flows.undo import carry_out, taken_over, undo_deploy
from tasks.plan_migrations import plan_migrations
from tasks.send_alert import send_alert
from tasks.take_up import take_up

State = Any  # Prefect's State is generic in what it carries; ours carry nothing


def run_name() -> str:
    """Such as ``deploy prod up to 010``, until the plan says the versions."""
    given = flow_run.parameters or {}
    last = f" up to {given['up_to']:03d}" if given.get("up_to") else ""
    release = f" with {given['release']}" if given.get("release") else ""
    return f"deploy {given.get('target')}{last}{release}"


@flow(name="deploy", flow_run_name=run_name, retries=0)
async def deploy(  # noqa: PLR0913, PLR0917 – the form has as many fields
    target: form.TargetName,
    up_to: form.UpTo = None,
    release: form.ReleaseRef = None,
    reason: form.Reason = "",
    requester: form.Requester = "",
    dry_run: form.DryRun = False,
    ask: form.Ask = False,
    lock_timeout_ms: form.LockBudget = None,
    skip: form.Skip = (),
) -> State:
    """Rehearse the pending migrations on a restored copy of the target, then apply them.

    A person is asked in between where the target or the rehearsal wants it. If the service is
    unhealthy afterwards, everything goes back.
    """
    request = DeployRequest(
        target=target,
        up_to=up_to,
        release=release,
        reason=reason,
        requester=requester,
        dry_run=dry_run,
        ask=ask,
        lock_timeout_ms=lock_timeout_ms,
        skip=skip,
    )
    try:
        check_reason(settings.target(target), reason, skip=skip)
        async with listening() as person, AsyncExitStack() as door:
            await door.enter_async_context(lock.hold(settings.target(target)))
            return await _deploy(request, door, person)
    except Interrupted as asked:
        return Cancelled(name="Cancelled", message=f"No deploy of {target} was begun. {asked}")
    except LeaseLost as error:
        return taken_over(error)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))


async def _deploy(request: DeployRequest, door: AsyncExitStack, person: Person) -> State:
    target, lease = request.target, None
    await refuse_if_outdated(target)
    left = await take_up(target, request, flow_run=str(flow_run.id))
    if left is not None:
        await watch.on()
    if left is not None and left.continues:
        await close_run(left.run, "its deploy goes on in another run")
        lease = left.lease
    elif left is not None:
        ended = await finish(left, door, person)
        if left.same and left.row.state == "rolling_back":
            return ended  # what was asked for has failed, and is back now
    if lease is None:
        # Not interrupted: what it opened would stay open.
        person.check()
        lease = await plan_migrations(request, flow_run=str(flow_run.id))
    if lease is None:
        await send_alert(target, return_state=True)
        return Completed(name="NothingToDo", message=f"{target} is up to date")
    await watch.on()
    opened = lease
    return await carry_out(
        opened,
        person,
        lambda: deploy_forwards(opened, door, dry_run=request.dry_run),
        undo_deploy,
    )
