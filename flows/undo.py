"""What failure means: nothing was touched, or everything goes back, or a person is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from prefect.states import Cancelled, Completed, Failed

from airlock import client, ledger, lock, refresh, settings
from airlock.errors import LeaseLost
from airlock.ledger import Lease
from airlock.postgres import without_details
from flows.interrupt import Interrupted, Person
from tasks.call_for_help import call_for_help
from tasks.fail import fail
from tasks.read_state import read_state
from tasks.roll_back import roll_back
from tasks.send_alert import send_alert
from tasks.start_rollback import start_rollback
from tasks.strand import strand
from tasks.swap_back import swap_back
from tasks.write_metrics import write_metrics
from tasks.write_report import write_report

State = Any
Back = Callable[[Lease, str], Awaitable[object]]
Undo = Callable[[Lease, Exception], Awaitable[State]]


async def carry_out(
    lease: Lease, person: Person, work: Callable[[], Awaitable[State]], undo: Undo
) -> State:
    """Do the work under a heartbeat, and tell how it ended.

    Whatever goes wrong in it, and whoever asks the run to end, what was begun is undone.
    """
    async with lock.heartbeat(settings.target(lease.target), lease), told(lease):
        try:
            async with person.may_interrupt():
                return await work()
        except LeaseLost:
            raise
        except Exception as failure:  # noqa: BLE001 – whatever it was, it goes back
            return await undo(lease, failure)


@asynccontextmanager
async def told(lease: Lease) -> AsyncGenerator[None]:
    """However the block ends, people and records hear of it, and of what clients felt meanwhile."""
    try:
        async with client.beside(lease):
            yield
    finally:
        # As states: what cannot be told or written changes nothing about the outcome.
        await send_alert(lease.target, return_state=True)
        await write_report(lease, return_state=True)
        await write_metrics(lease, return_state=True)


async def undo_deploy(lease: Lease, failure: Exception) -> State:
    """The state in which a failed deploy ends: Refused, RolledBack or Stranded."""
    return await _undo(lease, failure, roll_back)


async def undo_refresh(lease: Lease, failure: Exception) -> State:
    """The same for a refresh: nothing is left of the copy, and the old database serves."""
    return await _undo(lease, failure, swap_back)


async def _undo(lease: Lease, failure: Exception, back: Back) -> State:
    async def settle() -> State:
        state = await read_state(lease)
        if state in ledger.FINISHED:
            return _read_back(
                lease, state, failure, "Deployed" if back is roll_back else "Refreshed"
            )
        if back is swap_back:
            await refresh.clear(lease)
        if state in ledger.UNTOUCHED:
            return await _close(lease, failure)
        return await _go_back(lease, failure, back)

    return await _or_help(lease, failure, back, settle)


async def take_back(lease: Lease, asked: Exception, *, kind: ledger.Kind) -> State:
    """The same for a person who asked for it: a deploy that ended well goes back, too."""
    back: Back = roll_back if kind == "deploy" else swap_back

    async def settle() -> State:
        if kind == "refresh":
            await refresh.clear(lease)
        if await read_state(lease) in ledger.UNTOUCHED:
            return await _close(lease, asked)
        return await _go_back(lease, asked, back)

    return await _or_help(lease, asked, back, settle)


async def _or_help(
    lease: Lease, failure: Exception, back: Back, settle: Callable[[], Awaitable[State]]
) -> State:
    try:
        return await settle()
    except LeaseLost:
        raise
    except Exception as away:  # noqa: BLE001 – whatever it was, a person must hear of it
        await call_for_help(lease, "refresh" if back is swap_back else "deploy", return_state=True)
        # Not Refused: how far the deploy came stands in a ledger that cannot be read or written.
        return Failed(
            name="Stranded",
            message=f"{lease.target} needs a person, and its ledger could not be reached: "
            f"{_in_short(_said(away))} As soon as it can be: airlock status {lease.target}, then "
            f"airlock recover {lease.target}. This was after: {_in_short(_said(failure))}",
        )


def taken_over(lost: LeaseLost) -> State:
    """The end of a run whose deploy is another one's by now: not Refused, which says untouched."""
    return Failed(name="TakenOver", message=str(lost))


def _read_back(lease: Lease, state: ledger.State, failure: Exception, good: str) -> State:
    """It had ended, and the answer was lost on its way."""
    said = f"{_in_short(_said(failure))} The ledger says that {lease.target} had {state} by then."
    if state == "succeeded":
        return Completed(name=good, message=said)
    return _ended("RolledBack" if state == "rolled_back" else "Refused", said, failure)


async def _close(lease: Lease, failure: Exception) -> State:
    reason = _said(failure)
    await fail(lease, reason, cancelled=isinstance(failure, Interrupted))
    name = "Cancelled" if isinstance(failure, Interrupted) else "Refused"
    return _ended(name, f"{lease.target} was not touched. {_in_short(reason)}", failure)


def _ended(name: str, message: str, failure: Exception) -> State:
    made = Cancelled if isinstance(failure, Interrupted) else Failed
    return made(name=name, message=message)


def _said(failure: Exception) -> str:
    return str(failure) or type(failure).__name__


async def _go_back(lease: Lease, failure: Exception, back: Back) -> State:
    reason = _said(failure)
    try:
        await start_rollback(lease, reason, cancelled=isinstance(failure, Interrupted))
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
    return _ended("RolledBack", said, failure)


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
