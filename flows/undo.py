"""What failure means: nothing was touched, or everything goes back, or a person is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from prefect.states import Failed

from airlock import refresh
from airlock.errors import LeaseLost
from airlock.ledger import Lease
from airlock.postgres import without_details
from tasks.call_for_help import call_for_help
from tasks.fail import fail
from tasks.is_untouched import is_untouched
from tasks.roll_back import roll_back
from tasks.send_alert import send_alert
from tasks.start_rollback import start_rollback
from tasks.strand import strand
from tasks.swap_back import swap_back

Back = Callable[[Lease, str], Awaitable[object]]


async def undo_refresh(lease: Lease, failure: Exception) -> Any:
    """The same for a refresh: nothing is left of the copy, and the old database serves."""
    await refresh.clear(lease)
    return await undo(lease, failure, back=swap_back)


async def undo(lease: Lease, failure: Exception, *, back: Back = roll_back) -> Any:
    """The state in which a failed deploy ends: Refused, RolledBack or Stranded."""
    reason = str(failure) or type(failure).__name__
    try:
        if await is_untouched(lease):
            await fail(lease, reason)
            said = f"{lease.target} was not touched. {_in_short(reason)}"
            return Failed(name="Refused", message=said)
        return await _go_back(lease, reason, failure, back)
    except LeaseLost:
        raise
    except Exception as away:  # noqa: BLE001 – whatever it was, a person must hear of it
        await call_for_help(lease, "refresh" if back is swap_back else "deploy", return_state=True)
        # Not Refused: how far the deploy came stands in a ledger that cannot be read or written.
        return Failed(
            name="Stranded",
            message=f"{lease.target} needs a person, and its ledger could not be reached: "
            f"{_in_short(str(away) or type(away).__name__)} As soon as it can be: airlock status "
            f"{lease.target}, then airlock rollback {lease.target}. This was after: "
            f"{_in_short(reason)}",
        )


async def _go_back(lease: Lease, reason: str, failure: Exception, back: Back) -> Any:
    try:
        await start_rollback(lease, reason)
        async with _telling(lease.target):
            await back(lease, reason)
    except LeaseLost:
        raise
    except Exception as second:  # noqa: BLE001 – whatever it was, a person must hear of it
        second.__cause__ = second.__cause__ or failure
        await strand(lease, f"{second}\nThis was the rollback after: {reason}")
        said = f"{lease.target} needs a person. {_in_short(str(second))}"
        return Failed(name="Stranded", message=said)
    said = f"{lease.target} is back as it was. {_in_short(reason)}"
    return Failed(name="RolledBack", message=said)


@asynccontextmanager
async def _telling(target: str) -> AsyncGenerator[None]:
    """People hear of what has begun while it goes on. Whether they do changes nothing about it."""
    telling = asyncio.create_task(send_alert(target, return_state=True))
    try:
        yield
    finally:
        await telling


def _in_short(failure: str) -> str:
    """What happened, and the end, where a remedy stands; all of it is in the report."""
    lines = without_details(failure).strip().splitlines() or [""]
    return " … ".join(dict.fromkeys((lines[0], lines[-1])))
