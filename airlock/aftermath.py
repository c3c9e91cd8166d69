"""How a target was after the way back: what a person asks first when a deploy went wrong."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.health import HealthVerdict
from airlock.service import Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What the way back started again, and what it found.

    restart: None where what served before had not ended.
    health: None where there is no service, or where the way back did not come so far.
    service: how it answered one question, in words; where the way back failed.
    """

    restart: Restart | None = None
    health: HealthVerdict | None = None
    service: str = ""
