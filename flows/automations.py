"""Automations: Airlock's events go to a notification block, and dead runs to recover.

They are shipped, and kept on the server by name. What they need and nobody has made yet (the block,
the deployment) leaves them there and off, and they say how to switch them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from flows.runtime.command import HEARTBEAT_S

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

    def body(self, block: str | None) -> dict[str, Any]:
        """As Prefect's API takes it. block: the id of the notification block."""
        notify = {
            "type": "send-notification",
            "block_document_id": block,
            "subject": SUBJECT,
            "body": BODY,
        }
        match = {"prefect.resource.id": "airlock.target.*"}
        return {
            "name": self.name,
            "description": self.purpose if block else f"{self.purpose} {HOW}",
            "enabled": block is not None,
            "trigger": {
                "type": "event",
                "posture": "Reactive",
                "match": match | ({"airlock.resolves": "yes"} if self.resolves else {}),
                "expect": sorted(self.events),
                "threshold": 1,
                "within": 0,
            },
            "actions": [notify if block else DO_NOTHING],
        }


DO_NOTHING = {"type": "do-nothing"}
FAILURES = ("failed", "rolling_back", "rolled_back", "stranded", "cut_off")
AUTOMATIONS = (
    Automation(
        name="airlock: something failed",
        purpose="A deploy or a refresh was refused, goes back, has gone back, is stranded or "
        "cut off, a target has drifted, or schedules start nothing.",
        events=(
            *(f"airlock.deploy.{state}" for state in FAILURES),
            *(f"airlock.refresh.{state}" for state in FAILURES),
            "airlock.drift.found",
            "airlock.schedules.late",
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
            "airlock.schedules.on_time",
        ),
        resolves=True,
    ),
)


# ---------------------------------------------------------------- dead runs

RECOVER = "airlock: recover"
SILENT = "airlock: a run that is silent has crashed"
# Of prefect.yaml. It asks for nothing, and where nothing was left open it ends at once.
DEPLOYMENT = "recover/all"
HOW_RECOVER = (
    "To switch it on: publish the deployments of prefect.yaml, recover/all among them (`make "
    "serve`, or `python -m flows.publish`)."
)
# Three signs of life may be lost.
SILENT_S = 4 * HEARTBEAT_S
_OF_OURS = {
    "prefect.resource.role": "flow",
    "prefect.resource.name": ["deploy", "rollback", "refresh-staging"],
}


def recovering(deployment: str | None) -> dict[str, Any]:
    """Whose run has crashed or was cancelled, recover looks at. deployment: its id."""
    purpose = "A run has crashed or was cancelled: what it left unfinished is finished or undone."
    run = {"type": "run-deployment", "source": "selected", "deployment_id": deployment}
    return {
        "name": RECOVER,
        "description": purpose if deployment else f"{purpose} {HOW_RECOVER}",
        "enabled": deployment is not None,
        "trigger": {
            **_about_our_runs("Reactive", within=0),
            "expect": ["prefect.flow-run.Cancelled", "prefect.flow-run.Crashed"],
        },
        "actions": [run if deployment else DO_NOTHING],
    }


def crashing() -> dict[str, Any]:
    """Whose process and worker have both gone, nobody else says so."""
    beat = "prefect.flow-run.heartbeat"
    return {
        "name": SILENT,
        "description": f"A run without a sign of life for {SILENT_S} s has lost its process.",
        "enabled": True,
        "trigger": {
            **_about_our_runs("Proactive", within=SILENT_S),
            "after": [beat],
            # Whatever it says is a sign of life, or an end: our states have their own names.
            "expect": ["prefect.flow-run.*"],
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"No sign of life for {SILENT_S} s. See: airlock status",
            }
        ],
    }


def _about_our_runs(posture: str, *, within: int) -> dict[str, Any]:
    return {
        "type": "event",
        "posture": posture,
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": _OF_OURS,
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": within,
    }


# ---------------------------------------------------------------- on a server


async def apply(http: httpx.AsyncClient) -> None:
    """Create or update them. An automation that somebody has switched off stays off."""
    block, deployment = await _block(http), await _deployment(http)
    bodies = [each.body(block) for each in AUTOMATIONS]
    bodies += [recovering(deployment), crashing()]
    names = [body["name"] for body in bodies]
    wanted = {"automations": {"name": {"any_": names}}}
    answer = await http.post("/automations/filter", json=wanted)
    there = {each["name"]: each for each in answer.raise_for_status().json()}
    for body in bodies:
        known = there.get(body["name"])
        if known is None:
            (await http.post("/automations/", json=body)).raise_for_status()
            continue
        if known["actions"] != [DO_NOTHING]:
            body["enabled"] = body["enabled"] and known["enabled"]
        (await http.put(f"/automations/{known['id']}", json=body)).raise_for_status()


async def _block(http: httpx.AsyncClient) -> str | None:
    """The id of the block that somebody made, of whichever type; None when there is none."""
    wanted = {"block_documents": {"name": {"any_": [BLOCK]}}, "include_secrets": False}
    found = (await http.post("/block_documents/filter", json=wanted)).raise_for_status().json()
    for each in found:
        if "notify" in each["block_schema"]["capabilities"]:
            return each["id"]
    return None


async def _deployment(http: httpx.AsyncClient) -> str | None:
    """The id of the deployment that recovers; None before it was published."""
    answer = await http.get(f"/deployments/name/{DEPLOYMENT}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    return answer.raise_for_status().json()["id"]
