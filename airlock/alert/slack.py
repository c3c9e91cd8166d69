"""Slack's incoming webhooks, and those compatible with them.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

from airlock.alert import Alert, http
from airlock.settings import AlertSettings, Target


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.slack_url_env is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    del key  # an incoming webhook knows none
    url = target.variable(target.alerts.slack_url_env or "")
    await http.post(target, url, body(alert.seen_from(http.host(url))))


def body(alert: Alert) -> dict[str, object]:
    first, *rest = alert.lines
    return {"text": "\n".join([f"*{_escaped(first)}*", *(_escaped(line) for line in rest)])}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
