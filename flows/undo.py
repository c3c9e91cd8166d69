"""What failure means: nothing was touched, or everything goes back, or a person is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prefect.states import Failed

from airlock import deploy as steps
from airlock import refresh
from airlock.errors import LeaseLost
from airlock.ledger import Lease
from tasks.roll_back import roll_back
from tasks.swap_back import swap_back

Back = Callable[[Lease, str], Awaitable[object]]


async def undo_refresh(lease: Lease, failure: Exception) -> Any:
    """The same for a refresh: nothing is left of the copy, and the old database serves."""
    await refresh.clear(lease)
    return await undo(lease, failure, back=swap_back)


async def undo(lease: Lease, failure: Exception, *, back: Back = roll_back) -> Any:
    """The state in which a failed deploy ends: Refused, RolledBack or Stranded."""
    reason = str(failure) or type(failure).__name__
    if await steps.is_untouched(lease):
        await steps.fail(lease, reason)
        return Failed(name="Refused", message=f"{lease.target} was not touched. {reason}")
    try:
        await back(lease, reason)
    except LeaseLost:
        raise
    except Exception as second:  # noqa: BLE001 – whatever it was, a person must hear of it
        second.__cause__ = second.__cause__ or failure
        await steps.strand(lease, f"{second}\nThis was the rollback after: {reason}")
        return Failed(name="Stranded", message=f"{lease.target} needs a person. {second}")
    return Failed(name="RolledBack", message=f"{lease.target} is back as it was. {reason}")
