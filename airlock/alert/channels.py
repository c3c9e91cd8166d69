"""The channels, by name: each knows whether a target has it, and how an alert is handed to it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from airlock.alert import Alert, email, github, pagerduty, slack, webhook
from airlock.settings import AlertSettings, Target


class Sender(Protocol):
    """What the module of a channel offers."""

    def is_configured(self, alerts: AlertSettings) -> bool: ...

    def send(self, target: Target, key: str, alert: Alert) -> Awaitable[None]:
        """Returns when the channel has taken it. key: the same alert has the same one again.

        Raises NotTaken when the channel answered and said no, for now or for good, and anything
        else otherwise. No
        exception's text but NotTaken's and Refused's may be shown: it may carry an address.
        """
        ...


CHANNELS: Mapping[str, Sender] = {
    "slack": slack,
    "email": email,
    "pagerduty": pagerduty,
    "webhook": webhook,
    "github": github,
}


def configured(target: Target) -> frozenset[str]:
    """The channels that this target's settings have."""
    return frozenset(
        name for name, sender in CHANNELS.items() if sender.is_configured(target.alerts)
    )
