"""Who hears of which outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from airlock.alert import Alert, State

Severity = Literal["critical", "error", "warning", "info"]
DeploymentStatus = Literal["success", "failure", "error", "inactive"]

# What a deploy that ends well puts an end to.
ANYTHING: frozenset[State] = frozenset(
    {"failed", "rolling_back", "rolled_back", "stranded", "cut_off", "drift_found"}
)
# An incident of their own, and whoever asked the run to end: production may be half-way.
FOR_SURE: frozenset[State] = frozenset({"stranded", "cut_off"})
NOTHING: frozenset[State] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one outcome is to each channel. The generic webhook gets all of them.

    told: whether people read of it even when it resolves nothing.
    page: how loud the pager is; None means that it stays silent. What pages opens an incident.
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
    "schedules_late": Route(told=True, page="error", status=None, ends=NOTHING),
    "schedules_on_time": Route(
        told=False, page=None, status=None, ends=frozenset({"schedules_late"})
    ),
}
FAILURES: frozenset[State] = frozenset(state for state, route in ROUTES.items() if route.page)

# A page that was resolved before it could be sent would be opened by it, for nothing.
LATEST_ONLY: frozenset[str] = frozenset({"pagerduty"})


def page(alert: Alert) -> Severity | None:
    """The pager's severity; None does not page, as for a cancelled deploy that needs no person."""
    if alert.cancelled and alert.state not in FOR_SURE:
        return None
    return ROUTES[alert.state].page


def incident(target: str, about: int | str, state: State) -> str:
    """What an alert opens. about: the deploy's number, or what else it is about.

    A pager adds a second alert of an open incident to the first one and calls nobody, so another
    deploy is another incident, and so is one that needs a person for sure.
    """
    return f"airlock-{target}-{about}" + (f"-{state}" if state in FOR_SURE else "")


def filed(alert: Alert) -> Alert:
    """The alert with its incident."""
    about = alert.deploy or alert.kind
    return replace(alert, incident=incident(alert.target, about, alert.state))


def ended(state: State, open_incidents: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The incidents that an outcome puts an end to. open_incidents: with the states in them."""
    ends = ROUTES[state].ends
    return tuple(each for each, states in open_incidents.items() if ends.issuperset(states))


def channels(alert: Alert) -> frozenset[str]:
    """The channels that should have this alert, wherever they are configured."""
    route = ROUTES[alert.state]
    found: set[str] = {"webhook"}
    if route.told or alert.resolves:
        found |= {"slack", "email"}
    if page(alert) or alert.resolves:
        found.add("pagerduty")
    # A refresh deploys no code: it restarts what runs.
    if route.status and alert.ref and alert.kind == "deploy":
        found.add("github")
    return frozenset(found)
