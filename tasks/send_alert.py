"""Deliver what the outbox holds."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from airlock import outbox
from airlock.alert import Alert


@task(timeout_seconds=outbox.TARGET_S, cache_policy=NO_CACHE, task_run_name="send_alert {target}")
async def send_alert(target: str) -> tuple[str, ...]:
    """Send the waiting alerts of one target, as Prefect events and to its channels.

    Never fails: what could not be sent stays in the outbox for the next call.
    """
    try:
        # Events first: they need nobody's answer.
        await outbox.announce(target, emit)
    except Exception as error:  # noqa: BLE001 – the channels may be told all the same
        _warn(target, error)
    try:
        return tuple(str(letter) for letter in await outbox.deliver(target))
    except Exception as error:  # noqa: BLE001 – the deploy has ended, whoever hears of it
        _warn(target, error)
        return ()


def _warn(target: str, error: Exception) -> None:
    get_run_logger().warning(
        "The outbox of %s was not emptied (%s). Later: airlock deliver %s",
        target,
        type(error).__name__,
        target,
    )


def emit(alert: Alert) -> None:
    """The alert as an event, for automations, which tell people elsewhere."""
    alert = alert.seen_from(None)
    emit_event(
        event=alert.event,
        resource={
            "prefect.resource.id": f"airlock.target.{alert.target}",
            "prefect.resource.name": alert.target,
            "airlock.deploy": str(alert.deploy or ""),
            "airlock.resolves": "yes" if alert.resolves else "no",
        },
        payload={
            "headline": alert.title,
            "target": alert.target,
            "failed_step": alert.failed_step,
            "run_url": alert.run_url or "",
            "next_command": alert.next_command,
            "text": "\n".join(alert.lines[1:]),
        },
    )
