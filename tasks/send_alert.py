"""Deliver what the outbox holds."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from airlock import outbox
from airlock.alert import Alert
from airlock.errors import AirlockError


@task(timeout_seconds=60, cache_policy=NO_CACHE, task_run_name="send_alert {target}")
async def send_alert(target: str) -> tuple[Alert, ...]:
    """Send the waiting alerts of one target, to its webhook and as Prefect events.

    Never fails: what could not be sent stays in the outbox for the next call.
    """
    try:
        sent = await outbox.deliver(target)
    except AirlockError as error:
        get_run_logger().warning("The outbox of %s was not emptied: %s", target, error)
        return ()
    for alert in sent:
        emit_event(
            event=f"airlock.deploy.{alert.state}",
            resource={
                "prefect.resource.id": f"airlock.target.{target}",
                "prefect.resource.name": target,
                "airlock.deploy": str(alert.deploy),
            },
            payload={"headline": alert.headline, "failed_step": alert.failed_step},
        )
    return sent
