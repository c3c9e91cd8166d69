"""A person undoes the last deploy, with the same code that a failed deploy undoes itself with."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from airlock import approval, lock, refresh, settings
from airlock import deploy as steps
from airlock.errors import LeaseLost, Refused, Transient
from flows import form, watch
from flows.interrupt import listening
from flows.naming import close_run, link_run
from flows.retry import refuse_if_outdated
from flows.undo import take_back, taken_over, told

State = Any


class RollbackAsked(Exception):
    """Somebody asked for it: the failure that this rollback answers."""


@flow(name="rollback", flow_run_name="rollback {target}", retries=0)
async def rollback(
    target: form.TargetName,
    number: form.DeployNumber = None,
    reason: form.Reason = "",
    requester: form.Requester = "",
) -> State:
    """Undo the last deploy of a target: its migrations newest first, and its release.

    Also the way out of a deploy that was cut off or stranded. After a refresh the database from
    before it serves again, and what was written into the copy since is dropped with it.
    """
    try:
        approval.check_reason(settings.target(target), reason)
        async with (
            # What goes back is not stopped half-way.
            listening(),
            lock.hold(settings.target(target)),
            refresh.free_to_undo(settings.target(target), number),
        ):
            await refuse_if_outdated(target)
            lease, last = await steps.reopen(settings.target(target), number)
            if last.is_cut_off:
                await close_run(last.flow_run, "the deploy is rolled back")
            await watch.on()
            await link_run(lease)
            asked = RollbackAsked(
                f"Rollback asked for by {requester or 'somebody'}: {reason or 'no reason given'}"
            )
            async with lock.heartbeat(settings.target(target), lease), told(lease):
                ended = await take_back(lease, asked, kind=last.kind)
    except LeaseLost as error:
        return taken_over(error)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))
    if ended.name == "Stranded":
        return ended
    # Here it is what was asked for, and no failure.
    said = f"{target} is back as it was before deploy {last.id}"
    return Completed(name="UndoneByHand", message=said)
