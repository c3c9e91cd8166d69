"""The steps of a deploy and of a refresh, in their order, from wherever the ledger stands.

Each step looks at what is there first, so a runner that takes over begins at the top.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from prefect.states import Completed, Failed

from airlock import deploy as steps
from airlock import lock, settings
from airlock.approval import Approval
from airlock.ledger import Lease
from flows.approval import approve
from flows.naming import link_run, name_run
from tasks.apply_contract import apply_contract
from tasks.apply_plan import apply_plan
from tasks.check_health import check_health
from tasks.fail import fail
from tasks.mask import mask
from tasks.migrate_copy import migrate_copy
from tasks.plan_again import plan_again
from tasks.prepare_release import prepare_release
from tasks.rehearse import rehearse
from tasks.restart_service import restart_service
from tasks.restore_staging import restore_staging
from tasks.succeed import succeed
from tasks.succeed_refresh import succeed_refresh
from tasks.swap_databases import swap_databases
from tasks.take_snapshot import take_snapshot
from tasks.verify_schema import verify_schema

State = Any  # Prefect's State is generic in what it carries; ours carry nothing


async def deploy_forwards(lease: Lease, door: AsyncExitStack, *, dry_run: bool) -> State:
    """Prove the plan on the restored snapshot, ask where that is wanted, bring it to production.

    door: holds the database's lock.
    """
    planned = await steps.planned(lease)
    await name_run(f"deploy {lease.target} {planned.versions}")
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
    if planned.of_phase("contract"):
        await apply_contract(lease)
        await verify_schema(lease)
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


async def refresh_forwards(lease: Lease, door: AsyncExitStack) -> State:
    """Build the masked copy, and swap it in. door: holds the lock of the database that serves."""
    await link_run(lease)
    await restore_staging(lease)
    await mask(lease)
    await migrate_copy(lease)
    return await serve_copy(lease, door)


async def serve_copy(lease: Lease, door: AsyncExitStack) -> State:
    """Swap the copy in, if it does not serve already, and look whether the service is well."""
    await swap_databases(lease)
    # The lock that we hold went with the database that was replaced.
    await door.aclose()
    await door.enter_async_context(lock.hold(settings.target(lease.target), wait_s=10))
    await restart_service(lease)
    await check_health(lease)
    await succeed_refresh(lease)
    return Completed(name="Refreshed", message=f"{lease.target} is a masked copy, and healthy")
