"""One alert: what it says, and its delivery to a Slack-compatible webhook."""

from __future__ import annotations

from dataclasses import dataclass

from airlock import record
from airlock.errors import Refused
from airlock.settings import Target

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a person must know first, outcome in front."""

    headline: str
    target: str
    deploy: int
    state: str
    versions: str
    failed_step: str
    error: str
    requester: str
    reason: str
    kept_rows: int
    snapshot: str | None
    next_command: str

    @property
    def lines(self) -> tuple[str, ...]:
        """The alert as plain lines, the headline first."""
        rows = [
            ("Target", f"{self.target}, migrations {self.versions}, deploy {self.deploy}"),
            ("Failing step", self.failed_step),
            ("Error", self.error),
            ("Started by", " – ".join(part for part in (self.requester, self.reason) if part)),
            ("Rows kept", f"{self.kept_rows:,} in airlock.kept" if self.kept_rows else ""),
            ("Snapshot", self.snapshot or ""),
            ("Next", self.next_command),
        ]
        return (self.headline, *(f"{name}: {text}" for name, text in rows if text))


def slack_payload(alert: Alert) -> dict[str, object]:
    """The body that Slack's incoming webhooks, and those compatible with them, take.

    https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
    """
    first, *rest = alert.lines
    return {"text": "\n".join([f"*{_escaped(first)}*", *(_escaped(line) for line in rest)])}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def deliver(target: Target, body: str) -> str | None:
    """Send one alert from the outbox; None when it was taken, otherwise the reason.

    Without a webhook configured there is nobody to tell, and the alert counts as delivered.
    """
    if target.alerts.slack_url_env is None:
        return None
    import httpx

    try:
        url = target.variable(target.alerts.slack_url_env)
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            answer = await client.post(url, json=slack_payload(record.load(Alert, body)))
    except Refused as error:
        return str(error)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The address is a secret: some exceptions carry it, their class does not.
        return type(error).__name__
    return None if answer.is_success else f"HTTP status {answer.status_code}"
