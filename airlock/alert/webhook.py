"""Any address that takes JSON: the whole alert, of every outcome."""

from __future__ import annotations

import json

from airlock import record
from airlock.alert import Alert, http
from airlock.settings import AlertSettings, Target


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.webhook_url_env is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    url = target.variable(target.alerts.webhook_url_env or "")
    await http.post(
        target, url, body(key, alert.seen_from(http.host(url))), **{"Idempotency-Key": key}
    )


def body(key: str, alert: Alert) -> dict[str, object]:
    """key: whoever receives an alert twice can tell by it."""
    return {
        "key": key,
        "event": alert.event,
        "title": alert.title,
        **json.loads(record.dump(alert)),
    }
