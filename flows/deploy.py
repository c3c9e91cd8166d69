"""A deploy: snapshot, rehearsal, production, and the way back if the service is unhealthy."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.errors import LeaseLost, Refused, Transient
from airlock.ledger import Lease
from airlock.request import DeployRequest
from flows.naming import name_run
from flows.undo import undo
from tasks.apply_plan import apply_plan
from tasks.check_health import check_health
from tasks.plan_migrations import plan_migrations
from tasks.prepare_release import prepare_release
from tasks.rehearse import rehearse
from tasks.restart_service import restart_service
from tasks.send_alert import send_alert
from tasks.take_snapshot import take_snapshot
from tasks.verify_schema import verify_schema
from tasks.write_report import write_report

State = Any  # Prefect's State is generic in what it carries; ours carry nothing


def run_name() -> str:
    """Such as ``deploy prod up to 010``, until the plan says the versions."""
    given = flow_run.parameters or {}
    last = f" up to {given['up_to']:03d}" if given.get("up_to") else ""
    release = f" with {given['release']}" if given.get("release") else ""
    return f"deploy {given.get('target')}{last}{release}"


@flow(name="deploy", flow_run_name=run_name, retries=0)
async def deploy(
    target: str,
    up_to: Annotated[int, Field(ge=1)] | None = None,
    release: str | None = None,
    reason: Annotated[str, Field(max_length=500)] = "",
    requester: Annotated[str, Field(max_length=200)] = "",
    dry_run: bool = False,
) -> State:
    """Rehearse the pending migrations on a restored copy of the target, then apply them.

    target: a target of airlock.toml.
    up_to: the last migration to apply; all pending ones by default.
    release: commit or tag of the service to run afterwards; its own folder by default.
    dry_run: stop after the rehearsal; the target is not touched.
    """
    request = DeployRequest(
        target=target,
        up_to=up_to,
        release=release,
        reason=reason,
        requester=requester,
        dry_run=dry_run,
    )
    try:
        async with ledger.hold(settings.target(target)):
            lease = await plan_migrations(request)
            if lease is None:
                return Completed(name="NothingToDo", message=f"{target} is up to date")
            async with ledger.heartbeat(settings.target(target), lease):
                return await _run(lease, dry_run=dry_run)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))


async def _run(lease: Lease, *, dry_run: bool) -> State:
    try:
        return await _forward(lease, dry_run=dry_run)
    except LeaseLost:
        raise
    except Exception as failure:  # noqa: BLE001 – whatever it was, production goes back
        return await undo(lease, failure)
    finally:
        await send_alert(lease.target)
        # As a state: a report that cannot be written changes nothing about the outcome.
        await write_report(lease, return_state=True)


async def _forward(lease: Lease, *, dry_run: bool) -> State:
    await name_run(f"deploy {lease.target} {(await steps.planned(lease)).versions}")
    await prepare_release(lease)
    # Before the rehearsal, which proves it: the clone is this snapshot, restored.
    await take_snapshot(lease)
    await rehearse(lease)
    if dry_run:
        await steps.stop_dry_run(lease)
        return Completed(name="Rehearsed", message="Dry run: production was not touched")
    await apply_plan(lease)
    await verify_schema(lease)
    await restart_service(lease)
    await check_health(lease)
    await steps.succeed(lease)
    return Completed(name="Deployed", message=f"{lease.target} is deployed and healthy")
