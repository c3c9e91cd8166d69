"""What somebody asks for when they start a deploy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# Checks that a person may leave out, with a reason that the ledger keeps.
Gate = Literal["drift", "smoke", "log_errors", "bake"]


class DeployRequest(BaseModel):
    """One deploy, as the form or the command line states it. Nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Annotated[str, Field(min_length=1, description="A target of airlock.toml")]
    up_to: Annotated[
        int | None, Field(ge=1, description="The last migration to apply; all pending by default")
    ] = None
    release: Annotated[
        str | None,
        Field(min_length=1, description="Commit or tag of the service; its own folder by default"),
    ] = None
    reason: Annotated[str, Field(max_length=500)] = ""
    requester: Annotated[str, Field(max_length=200)] = ""
    dry_run: Annotated[bool, Field(description="Stop after the rehearsal")] = False
    ask: Annotated[
        bool, Field(description="Wait for a person's decision even where the target would not")
    ] = False
    lock_timeout_ms: Annotated[
        int | None,
        Field(ge=10, le=60_000, description="For one lock; the target's budget by default"),
    ] = None
    skip: Annotated[tuple[Gate, ...], Field(description="Checks to leave out; needs a reason")] = ()
