"""A person undoes the last deploy, with the same code that a failed deploy undoes itself with."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from airlock import approval, ledger, refresh, settings
from airlock import deploy as steps
from airlock.errors import Refused, Transient
from flows import form
from flows.naming import close_run, link_run
from flows.undo import undo, undo_refresh
from tasks.send_alert import send_alert
from tasks.write_metrics import write_metrics
from tasks.write_report import write_report

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
            ledger.hold(settings.target(target)),
            refresh.free_to_undo(settings.target(target), number),
        ):
            lease, last = await steps.reopen(settings.target(target), number)
            await close_run(last)
            await link_run(lease)
            asked = RollbackAsked(
                f"Rollback asked for by {requester or 'somebody'}: {reason or 'no reason given'}"
            )
            try:
                back = undo if last.kind == "deploy" else undo_refresh
                async with ledger.heartbeat(settings.target(target), lease):
                    ended = await back(lease, asked)
            finally:
                await send_alert(target, return_state=True)
                await write_report(lease, return_state=True)
                await write_metrics(lease, return_state=True)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))
    if ended.name == "Stranded":
        return ended
    # Here it is what was asked for, and no failure.
    said = f"{target} is back as it was before deploy {last.id}"
    return Completed(name="UndoneByHand", message=said)
