"""PagerDuty: an incident for each failure, resolved by the next good end.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from __future__ import annotations

from airlock.alert import Alert, http
from airlock.alert.routing import page
from airlock.settings import AlertSettings, Target

SUMMARY_CHARACTERS = 1024


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.pagerduty_key_env is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    del key  # the incident has one of its own
    routing_key = target.variable(target.alerts.pagerduty_key_env or "")
    url = target.alerts.pagerduty_url
    for incident in incidents(alert):
        await http.post(target, url, body(routing_key, alert.seen_from(http.host(url)), incident))


def incidents(alert: Alert) -> tuple[str, ...]:
    """Those that it opens or ends; the target's one where an older version made the alert."""
    oldest = f"airlock-{alert.target}"
    return (alert.ends or (oldest,)) if alert.resolves else (alert.incident or oldest,)


def body(routing_key: str, alert: Alert, incident: str) -> dict[str, object]:
    event: dict[str, object] = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.resolves else "trigger",
        "dedup_key": incident,
        "payload": {
            "summary": alert.title[:SUMMARY_CHARACTERS],
            "source": alert.target,
            "severity": page(alert) or "info",
            "component": alert.failed_step or alert.kind,
            "class": alert.event,
            "custom_details": dict(line.split(": ", 1) for line in alert.lines[1:]),
            **({"timestamp": alert.at.isoformat()} if alert.at else {}),
        },
    }
    if alert.run_url:
        event |= {"links": [{"href": alert.run_url, "text": "The run"}]}
    return event
