"""Who hears of which outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from airlock.alert import Alert, State

Severity = Literal["critical", "error", "warning", "info"]
DeploymentStatus = Literal["success", "failure", "error", "inactive"]

ANYTHING: frozenset[State] = frozenset(
    {"failed", "rolling_back", "rolled_back", "stranded", "cut_off", "drift_found"}
)
NOTHING: frozenset[State] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one outcome is to each channel. The generic webhook gets all of them.

    told: whether people read of it even when it resolves nothing.
    page: how loud the pager is; None means that it stays silent.
    status: the GitHub deployment's; None means that no deployment was meant.
    ends: the open failures that it puts an end to.
    """

    told: bool
    page: Severity | None
    status: DeploymentStatus | None
    ends: frozenset[State]


ROUTES: Mapping[State, Route] = {
    "succeeded": Route(told=False, page=None, status="success", ends=ANYTHING),
    "failed": Route(told=True, page="warning", status="failure", ends=NOTHING),
    # Stranded, of a deploy that was cut off and turns out to have touched nothing.
    "turned_down": Route(
        told=True, page=None, status="inactive", ends=frozenset({"stranded", "cut_off"})
    ),
    "withdrawn": Route(told=False, page=None, status=None, ends=frozenset({"failed"})),
    # While it goes back, which may take a while, or end badly: the next one is the outcome.
    "rolling_back": Route(told=True, page="error", status=None, ends=NOTHING),
    "rolled_back": Route(told=True, page="error", status="failure", ends=NOTHING),
    "undone": Route(told=True, page=None, status="inactive", ends=ANYTHING),
    "stranded": Route(told=True, page="critical", status="error", ends=NOTHING),
    # Recover has not come to it: production may be half-way.
    "cut_off": Route(told=True, page="critical", status=None, ends=NOTHING),
    "approval_wanted": Route(told=True, page=None, status=None, ends=NOTHING),
    "drift_found": Route(told=True, page="warning", status=None, ends=NOTHING),
    "drift_gone": Route(told=False, page=None, status=None, ends=frozenset({"drift_found"})),
}

# A page that was resolved before it could be sent would be opened by it, for nothing.
LATEST_ONLY: frozenset[str] = frozenset({"pagerduty"})


def ends(state: State, before: Collection[str]) -> bool:
    """Whether this outcome ends every failure of the target that is still open.

    before: the states of its alerts since the last one that did so.
    """
    still_open = ANYTHING.intersection(before)
    return bool(still_open) and still_open <= ROUTES[state].ends


def channels(alert: Alert) -> frozenset[str]:
    """The channels that should have this alert, wherever they are configured."""
    route = ROUTES[alert.state]
    found: set[str] = {"webhook"}
    if route.told or alert.resolves:
        found |= {"slack", "email"}
    if route.page or alert.resolves:
        found.add("pagerduty")
    # A refresh deploys no code: it restarts what runs.
    if route.status and alert.ref and alert.kind == "deploy":
        found.add("github")
    return frozenset(found)
