"""PagerDuty: one incident for each target, opened by a failure and resolved by the next good end.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from __future__ import annotations

from airlock.alert import Alert, http
from airlock.alert.routing import ROUTES
from airlock.settings import AlertSettings, Target

SUMMARY_CHARACTERS = 1024


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.pagerduty_key_env is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    del key  # the incident's own is the target's
    routing_key = target.variable(target.alerts.pagerduty_key_env or "")
    await http.post(target, target.alerts.pagerduty_url, body(routing_key, alert))


def body(routing_key: str, alert: Alert) -> dict[str, object]:
    event: dict[str, object] = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.resolves else "trigger",
        "dedup_key": f"airlock-{alert.target}",
        "payload": {
            "summary": alert.title[:SUMMARY_CHARACTERS],
            "source": alert.target,
            "severity": ROUTES[alert.state].page or "info",
            "component": alert.failed_step or alert.kind,
            "class": alert.event,
            "custom_details": dict(line.split(": ", 1) for line in alert.lines[1:]),
            **({"timestamp": alert.at.isoformat()} if alert.at else {}),
        },
    }
    if alert.run_url:
        event |= {"links": [{"href": alert.run_url, "text": "The run"}]}
    return event
