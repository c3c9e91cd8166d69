"""A refresh: staging becomes a masked copy of production, or stays as it is."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed, Failed

from airlock import ledger, refresh, settings
from airlock.errors import LeaseLost, Refused, Transient
from airlock.ledger import Lease
from airlock.request import RefreshRequest
from flows import form
from flows.naming import link_run
from flows.undo import undo_refresh
from tasks.check_health import check_health
from tasks.mask import mask
from tasks.migrate_copy import migrate_copy
from tasks.plan_refresh import plan_refresh
from tasks.restart_service import restart_service
from tasks.restore_staging import restore_staging
from tasks.send_alert import send_alert
from tasks.succeed_refresh import succeed_refresh
from tasks.swap_databases import swap_databases
from tasks.write_metrics import write_metrics
from tasks.write_report import write_report

State = Any  # Prefect's State is generic in what it carries; ours carry nothing
Fresh = Annotated[
    bool,
    form.shown(
        "Fresh snapshot",
        "Take a snapshot of the source now, even where a young one is there.",
    ),
]


@flow(name="refresh-staging", flow_run_name="refresh {target}", retries=0)
async def refresh_staging(
    target: form.TargetName,
    fresh_snapshot: Fresh = False,
    reason: form.Reason = "",
    requester: form.Requester = "",
) -> State:
    """Replace a target's database by a masked copy of the one that its settings name.

    Masked rows come into a database that only its owner and the target's own role can reach; it is
    checked and migrated there, and then the two change places in one transaction. If the service is
    unhealthy on the copy, they change back.
    """
    request = RefreshRequest(
        target=target, fresh_snapshot=fresh_snapshot, reason=reason, requester=requester
    )
    try:
        refresh.configured(settings.target(target))
        async with refresh.alone(settings.target(target)), ledger.hold(settings.target(target)):
            lease = await plan_refresh(request)
            async with ledger.heartbeat(settings.target(target), lease):
                return await _run(lease)
    except (Refused, Transient) as error:
        return Failed(name="Refused", message=str(error))


async def _run(lease: Lease) -> State:
    try:
        return await _forward(lease)
    except LeaseLost:
        raise
    except Exception as failure:  # noqa: BLE001 – whatever it was, the old database serves again
        return await undo_refresh(lease, failure)
    finally:
        # As states: what cannot be told or written changes nothing about the outcome.
        await send_alert(lease.target, return_state=True)
        await write_report(lease, return_state=True)
        await write_metrics(lease, return_state=True)


async def _forward(lease: Lease) -> State:
    await link_run(lease)
    await restore_staging(lease)
    await mask(lease)
    await migrate_copy(lease)
    await swap_databases(lease)
    # The lock that we hold went with the database that was replaced.
    async with ledger.hold(settings.target(lease.target), wait_s=10):
        await restart_service(lease)
        await check_health(lease)
        await succeed_refresh(lease)
    return Completed(name="Refreshed", message=f"{lease.target} is a masked copy, and healthy")
