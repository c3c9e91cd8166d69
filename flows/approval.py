"""A person's word: the run waits for it, and the terminal can give it too."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, pause_flow_run
from prefect.input import RunInput, keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Paused
from prefect.utilities.urls import url_for
from pydantic import Field

from airlock import deploy as steps
from airlock import lock, settings
from airlock.approval import Approval
from airlock.errors import Refused, Transient
from airlock.ledger import Lease
from airlock.request import Name, Text
from tasks.ask import ask
from tasks.decide import decide
from tasks.send_alert import send_alert
from tasks.show_rehearsal import show_rehearsal

POLL_S = 1.0
# Prefect's own end of the pause comes later than ours, which it would otherwise name by itself.
SLACK_S = 60.0
# A nightly refresh may be reading production when the answer comes.
LOCK_WAIT_S = 3600.0
# From an answer to the ledger.
HEARD_S = 30.0


class Decision(RunInput):
    """The form that a waiting run shows; the server refuses what does not fit it."""

    decision: Annotated[
        Literal["reject", "approve"], Field(title="Decision", description="Reject ends the deploy.")
    ] = "reject"
    name: Annotated[
        Name,
        Field(title="Your name", description="Who decides; the ledger keeps it.", pattern=r"\S"),
    ]
    reason: Annotated[Text, Field(title="Reason", description="Why; the ledger keeps it.")] = ""


async def approve(lease: Lease, door: AsyncExitStack) -> Approval:
    """What a person decides about the rehearsal, where the target asks for one.

    door: holds the database's lock. It stands open while the person reads: others may take
        snapshots, and the ledger keeps a second deploy out.
    """
    asked = await ask(lease)
    if asked.decision is not None:
        return asked
    question = await show_rehearsal(lease)
    await door.aclose()
    await send_alert(lease.target, return_state=True)
    # Letters, digits and dashes are admitted.
    asked_at = round(asked.asked_at.timestamp() * 1e6)
    key = f"{lease.deploy}-{asked_at}-{flow_run.run_count}"
    decided = await _decided(lease, question, key=key)
    if not decided.is_refusal:
        target = settings.target(lease.target)
        await door.enter_async_context(lock.hold(target, wait_s=LOCK_WAIT_S))
    return decided


async def _decided(lease: Lease, question: str, *, key: str) -> Approval:
    timeout_s = settings.target(lease.target).approval.timeout_s
    _say_how(lease, timeout_s)
    waiting = asyncio.create_task(_paused(question, timeout_s, key))
    watching = asyncio.create_task(_until_taken_over(lease))
    try:
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # raises LeaseLost
        answer = await waiting
    finally:
        waiting.cancel()
        watching.cancel()
        await asyncio.gather(waiting, watching, return_exceptions=True)
    if answer is None:
        return await decide(lease, "expired")
    decision = "approved" if answer.decision == "approve" else "rejected"
    return await decide(lease, decision, name=answer.name.strip(), reason=answer.reason)


def _say_how(lease: Lease, timeout_s: float) -> None:
    until = datetime.now(UTC) + timedelta(seconds=timeout_s)
    where = url_for("flow-run", flow_run.id)
    get_run_logger().info(
        "Waiting until %s UTC for a person's decision: Resume in %s, or type: "
        "airlock approve %s, or: airlock reject %s",
        f"{until:%Y-%m-%d %H:%M}",
        where or "Prefect's UI",
        lease.target,
        lease.target,
    )


async def _paused(question: str, timeout_s: float, key: str) -> Decision | None:
    """The form as it was filled in; None when time was up.

    key: names this very question. Prefect counts the pauses of a run otherwise, and would answer
        the first one of a run that was started again with what was said in the run before.
    """
    form: Any = Decision.with_initial_data(description=question)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    given = await pause_flow_run(
                        wait_for_input=form,
                        timeout=timeout_s + SLACK_S,
                        poll_interval=POLL_S,
                        key=key,
                    )
                    # None for a question that was answered while we did not hear.
                    return given or await Decision.aload(_answers(key))
                except httpx.HTTPError as away:
                    await _until_resumed(away)
    except TimeoutError:
        return None


def _answers(key: str) -> dict[str, str]:
    """Where Prefect keeps what was answered to the question of that key."""
    return dict(keyset_from_paused_state(Paused(pause_key=key)))


async def _until_resumed(away: Exception) -> None:
    """Wait while the server is away, and from then on for the answer: the question stands there."""
    get_run_logger().warning("Waiting for the decision, and for the Prefect server: %s", away)
    while True:
        await asyncio.sleep(POLL_S)
        with suppress(httpx.HTTPError):
            async with get_client() as client:
                state = (await client.read_flow_run(UUID(str(flow_run.id)))).state
            if state is None or not state.is_paused():
                return


async def _until_taken_over(lease: Lease) -> None:
    """Raises LeaseLost once somebody else has the deploy; a rollback by hand ends the waiting."""
    while True:
        await asyncio.sleep(lock.HEARTBEAT_S)
        try:
            await steps.check_lease(lease)
        except (Transient, OSError):
            continue  # a database that is away for a moment ends no waiting


# ---------------------------------------------------------------- from a terminal


async def answer(
    decision: Literal["approve", "reject"], target: str, name: str, reason: str
) -> str:
    """Answer the run that waits for a decision about a target, as the UI's form does.

    Raises Refused when none waits, or when the server does not take the answer.
    """
    number, found = await steps.asked(settings.target(target))
    run = UUID(found)
    given = {"decision": decision, "name": name, "reason": reason}
    async with get_client() as client:
        try:
            result = await client.resume_flow_run(run, run_input=given)
        except httpx.HTTPError as error:
            raise Refused(
                f"The Prefect server did not take the answer for run {run} "
                f"({type(error).__name__}). The run may be another server's: name that one in "
                "PREFECT_API_URL."
            ) from None
    # A refused answer comes with HTTP status 200 as well.
    if result.status.value != "ACCEPT":
        why = getattr(result.details, "reason", None) or result.status.value
        raise Refused(
            f"The run that waits for a decision about {target} did not take it: {why} "
            f"See: airlock status {target}"
        )
    await _heard(target, number)
    return f"{url_for('flow-run', run) or run} goes on: {decision}"


async def _heard(target: str, number: int) -> None:
    """Wait until the run has written the answer. Raises Transient when it does not.

    The server takes an answer for a run whose process was killed as well.
    """
    until = time.monotonic() + HEARD_S
    while not await steps.is_decided(settings.target(target), number):
        if time.monotonic() >= until:
            raise Transient(
                f"The answer about {target} was taken, and within {HEARD_S:.0f} s nobody acted on "
                f"it; {target} is untouched. Look whether its runner still lives: airlock status "
                f"{target}"
            )
        await asyncio.sleep(POLL_S / 2)
