"""A person undoes the last deploy, with the same code that a failed deploy undoes itself with."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed, Failed
from pydantic import Field

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.errors import Refused, Transient
from flows.undo import undo
from tasks.send_alert import send_alert
from tasks.write_report import write_report

State = Any


class RollbackAsked(Exception):
    """Somebody asked for it: the failure that this rollback answers."""


@flow(name="rollback", flow_run_name="rollback {target}", retries=0)
async def rollback(
    target: str,
    reason: Annotated[str, Field(max_length=500)] = "",
    requester: Annotated[str, Field(max_length=200)] = "",
) -> State:
    """Undo the last deploy of a target: its migrations newest first, and its release.

    Also the way out of a deploy that was cut off or stranded.
    """
    try:
        async with ledger.hold(settings.target(target)):
            lease, _ = await steps.reopen(settings.target(target))
            asked = RollbackAsked(
                f"Rollback asked for by {requester or 'somebody'}: {reason or 'no reason given'}"
            )
            try:
                ended = await undo(lease, asked)
            finally:
                await send_alert(target)
                await write_report(lease, return_state=True)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))
    if ended.name == "Stranded":
        return ended
    # Here it is what was asked for, and no failure.
    return Completed(name="UndoneByHand", message=f"{target} is back as it was before the deploy")
