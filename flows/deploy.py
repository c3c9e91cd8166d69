"""A deploy: snapshot, rehearsal, production, and the way back if the service is unhealthy."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.approval import Approval, check_reason
from airlock.errors import LeaseLost, Refused, Transient
from airlock.ledger import Lease
from airlock.request import DeployRequest
from flows import form
from flows.approval import approve
from flows.naming import link_run, name_run
from flows.undo import undo
from tasks.apply_plan import apply_plan
from tasks.check_health import check_health
from tasks.fail import fail
from tasks.plan_again import plan_again
from tasks.plan_migrations import plan_migrations
from tasks.prepare_release import prepare_release
from tasks.rehearse import rehearse
from tasks.restart_service import restart_service
from tasks.send_alert import send_alert
from tasks.succeed import succeed
from tasks.take_snapshot import take_snapshot
from tasks.verify_schema import verify_schema
from tasks.write_metrics import write_metrics
from tasks.write_report import write_report

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
        async with AsyncExitStack() as door:
            await door.enter_async_context(ledger.hold(settings.target(target)))
            lease = await plan_migrations(request)
            if lease is None:
                await send_alert(target, return_state=True)
                return Completed(name="NothingToDo", message=f"{target} is up to date")
            async with ledger.heartbeat(settings.target(target), lease):
                return await _run(lease, door, dry_run=dry_run)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))


async def _run(lease: Lease, door: AsyncExitStack, *, dry_run: bool) -> State:
    try:
        return await _forward(lease, door, dry_run=dry_run)
    except LeaseLost:
        raise
    except Exception as failure:  # noqa: BLE001 – whatever it was, production goes back
        return await undo(lease, failure)
    finally:
        # As states: what cannot be told or written changes nothing about the outcome.
        await send_alert(lease.target, return_state=True)
        await write_report(lease, return_state=True)
        await write_metrics(lease, return_state=True)


async def _forward(lease: Lease, door: AsyncExitStack, *, dry_run: bool) -> State:
    await name_run(f"deploy {lease.target} {(await steps.planned(lease)).versions}")
    await link_run(lease)
    await prepare_release(lease)
    await _prove(lease)
    if dry_run:
        await steps.stop_dry_run(lease)
        return Completed(name="Rehearsed", message="Dry run: production was not touched")
    approval = await approve(lease, door)
    # Only a person takes so long that production may have changed.
    while approval.decision == "approved" and await plan_again(lease):
        await _prove(lease)
        approval = await approve(lease, door)
    if approval.is_refusal:
        return await _turn_down(lease, approval)
    await apply_plan(lease)
    await verify_schema(lease)
    await restart_service(lease)
    await check_health(lease)
    await succeed(lease)
    return Completed(name="Deployed", message=f"{lease.target} is deployed and healthy")


async def _prove(lease: Lease) -> None:
    # Before the rehearsal, which proves it: the clone is this snapshot, restored.
    await take_snapshot(lease)
    await rehearse(lease)


async def _turn_down(lease: Lease, approval: Approval) -> State:
    await fail(lease, approval.sentence)
    name = "Rejected" if approval.decision == "rejected" else "Expired"
    return Failed(name=name, message=f"{lease.target} was not touched. {approval.sentence}")
