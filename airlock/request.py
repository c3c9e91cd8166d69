"""What somebody asks for when they start a deploy."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from airlock.errors import Refused

# Checks that a person may leave out, with a reason that the ledger keeps.
Gate = Literal["drift", "lock_budget", "smoke", "log_errors", "bake"]

# The release of a request that means the service's own folder as it is.
WORKING_TREE = "working-tree"


def _reference(text: str) -> str:
    # A leading dash would be an option of git's.
    if text.startswith("-") or " " in text or not text.isprintable():
        raise ValueError(
            f"{text!a} is not the name of a commit, tag or branch: it begins with a dash, or "
            "contains a blank or a control character"
        )
    return text


# The bounds of each field, which the forms share.
Version = Annotated[int, Field(ge=1)]
Reference = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_reference)]
Text = Annotated[str, Field(max_length=500)]
Name = Annotated[str, Field(max_length=200)]
LockTimeout = Annotated[int, Field(ge=10, le=60_000)]


class DeployRequest(BaseModel):
    """One deploy, as the form or the command line states it. Nothing in it is secret.

    up_to: the last migration to apply; all that are pending by default.
    release: commit, tag or branch of the service, or ``working-tree``; what serves by default.
    dry_run: stop after the rehearsal.
    ask: wait for a person's decision even where the target would not.
    lock_timeout_ms: for one lock; the target's budget by default.
    skip: checks to leave out; needs a reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Annotated[str, Field(min_length=1)]
    up_to: Version | None = None
    release: Reference | None = None
    reason: Text = ""
    requester: Name = ""
    dry_run: bool = False
    ask: bool = False
    lock_timeout_ms: LockTimeout | None = None
    skip: tuple[Gate, ...] = ()


class RefreshRequest(BaseModel):
    """One refresh, as the form or the command line states it. Nothing in it is secret.

    fresh_snapshot: take a snapshot of the source now, even where a young one is there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Annotated[str, Field(min_length=1)]
    fresh_snapshot: bool = False
    reason: Text = ""
    requester: Name = ""


Request = TypeVar("Request", DeployRequest, RefreshRequest)


def checked(kind: type[Request], **given: Any) -> Request:
    """The request. Raises Refused naming the first field that is outside its bounds."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise Refused(f"{field}: {said}. Nothing was started.") from None
