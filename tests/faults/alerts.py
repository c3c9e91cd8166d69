"""Whoever is to be told does not answer, or says no."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.faults.theatre import Case, Theatre

# What the webhook answers until it is mended; None: nothing at all.
_ANSWERS = {"500": 500, "429": 429, "nothing": None}


def cases() -> Iterator[Case]:
    for said, status in _ANSWERS.items():
        for release in ("v2", "unhealthy"):
            yield Case(
                name=f"the webhook answers {said} / {release}",
                fault=f"the webhook answers {said}",
                where="its alerts",
                play=partial(_unheard, status, release),
            )


async def _unheard(status: int | None, release: str, theatre: Theatre) -> None:
    """The deploy does not mind; whoever delivers later finds the alerts waiting."""
    webhook = theatre.stage.webhook
    webhook.status = status
    await theatre.deploy(release)
    webhook.status = 200
    webhook.bodies.clear()
