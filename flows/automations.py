"""Automations that hand Airlock's events to a notification block of Prefect's own.

They are shipped, and kept on the server by name. As long as nobody has made the block, they are
there and off, and say how to switch them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

BLOCK = "airlock-alerts"
HOW = (
    f"To switch it on: Blocks, +, any notification block (Slack, Teams, e-mail, webhook …), "
    f"named {BLOCK}; then start `make serve` again."
)

SUBJECT = "{{ event.payload['headline'] }}"
BODY = "{{ event.payload['headline'] }}\n{{ event.payload['text'] }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Automation:
    """What it is called and for, and the events that it listens to.

    resolves: only where they put an end to what an earlier alert began.
    """

    name: str
    purpose: str
    events: tuple[str, ...]
    resolves: bool = False


FAILURES = ("failed", "rolling_back", "rolled_back", "stranded")
AUTOMATIONS = (
    Automation(
        name="airlock: something failed",
        purpose="A deploy or a refresh was refused, goes back, has gone back or is stranded, or a "
        "target has drifted.",
        events=(
            *(f"airlock.deploy.{state}" for state in FAILURES),
            *(f"airlock.refresh.{state}" for state in FAILURES),
            "airlock.drift.found",
        ),
    ),
    Automation(
        name="airlock: approval wanted",
        purpose="A deploy waits for a person.",
        events=("airlock.deploy.approval_wanted",),
    ),
    Automation(
        name="airlock: resolved",
        purpose="What an earlier alert began has come to a good end.",
        events=(
            *(f"airlock.deploy.{state}" for state in ("succeeded", "undone", "turned_down")),
            "airlock.deploy.withdrawn",
            *(f"airlock.refresh.{state}" for state in ("succeeded", "undone", "turned_down")),
            "airlock.drift.gone",
        ),
        resolves=True,
    ),
)


async def apply(http: httpx.AsyncClient) -> None:
    """Create or update them. An automation that somebody has switched off stays off."""
    block = await _block(http)
    names = [each.name for each in AUTOMATIONS]
    wanted = {"automations": {"name": {"any_": names}}}
    answer = await http.post("/automations/filter", json=wanted)
    there = {each["name"]: each for each in answer.raise_for_status().json()}
    for each in AUTOMATIONS:
        known = there.get(each.name)
        body = automation(each, block)
        if known is None:
            (await http.post("/automations/", json=body)).raise_for_status()
            continue
        if _notifies(known):
            body["enabled"] = body["enabled"] and known["enabled"]
        (await http.put(f"/automations/{known['id']}", json=body)).raise_for_status()


def automation(made: Automation, block: str | None) -> dict[str, Any]:
    """One automation as Prefect's API takes it. block: the id of the notification block."""
    notify = {
        "type": "send-notification",
        "block_document_id": block,
        "subject": SUBJECT,
        "body": BODY,
    }
    match = {"prefect.resource.id": "airlock.target.*"}
    return {
        "name": made.name,
        "description": made.purpose if block else f"{made.purpose} {HOW}",
        "enabled": block is not None,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": match | ({"airlock.resolves": "yes"} if made.resolves else {}),
            "expect": sorted(made.events),
            "threshold": 1,
            "within": 0,
        },
        "actions": [notify if block else {"type": "do-nothing"}],
    }


def _notifies(known: dict[str, Any]) -> bool:
    return any(action["type"] == "send-notification" for action in known["actions"])


async def _block(http: httpx.AsyncClient) -> str | None:
    """The id of the block that somebody made, of whichever type; None when there is none."""
    wanted = {"block_documents": {"name": {"any_": [BLOCK]}}, "include_secrets": False}
    found = (await http.post("/block_documents/filter", json=wanted)).raise_for_status().json()
    for each in found:
        if "notify" in each["block_schema"]["capabilities"]:
            return each["id"]
    return None
