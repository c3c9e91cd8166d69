"""Automations that hand Airlock's events to a notification block of Prefect's own.

They are shipped, and kept on the server by name. As long as nobody has made the block, they are
there and off, and say how to switch them on.
"""

from __future__ import annotations

from typing import Any

import httpx

BLOCK = "airlock-alerts"
HOW = (
    f"To switch it on: Blocks, +, any notification block (Slack, Teams, e-mail, webhook …), "
    f"named {BLOCK}; then start `make serve` again."
)

SUBJECT = "{{ event.payload['headline'] }}"
BODY = "{{ event.payload['headline'] }}\n{{ event.payload['text'] }}"

# Name, what it is for, and the events that it listens to.
AUTOMATIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "airlock: something failed",
        "A deploy or a refresh was refused, rolled back or stranded, or a target has drifted.",
        (
            *(f"airlock.deploy.{state}" for state in ("failed", "rolled_back", "stranded")),
            *(f"airlock.refresh.{state}" for state in ("failed", "rolled_back", "stranded")),
            "airlock.drift.found",
        ),
    ),
    (
        "airlock: approval wanted",
        "A deploy waits for a person.",
        ("airlock.deploy.approval_wanted",),
    ),
)


async def apply(http: httpx.AsyncClient) -> None:
    """Create or update them. An automation that somebody has switched off stays off."""
    block = await _block(http)
    names = [name for name, _, _ in AUTOMATIONS]
    wanted = {"automations": {"name": {"any_": names}}}
    answer = await http.post("/automations/filter", json=wanted)
    there = {each["name"]: each for each in answer.raise_for_status().json()}
    for name, purpose, events in AUTOMATIONS:
        known = there.get(name)
        body = automation(name, purpose, events, block)
        if known is None:
            (await http.post("/automations/", json=body)).raise_for_status()
            continue
        if _notifies(known):
            body["enabled"] = body["enabled"] and known["enabled"]
        (await http.put(f"/automations/{known['id']}", json=body)).raise_for_status()


def automation(
    name: str, purpose: str, events: tuple[str, ...], block: str | None
) -> dict[str, Any]:
    """One automation as Prefect's API takes it. block: the id of the notification block."""
    notify = {
        "type": "send-notification",
        "block_document_id": block,
        "subject": SUBJECT,
        "body": BODY,
    }
    return {
        "name": name,
        "description": purpose if block else f"{purpose} {HOW}",
        "enabled": block is not None,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "airlock.target.*"},
            "expect": sorted(events),
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
