"""The fields of the flows' forms: what both UIs draw, and what the API holds callers to.

Prefect titles a parameter with its bare name and drops the description of its annotation; what
stands in ``json_schema_extra`` it leaves alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.fields import FieldInfo

from airlock import settings
from airlock.errors import AirlockError
from airlock.request import Gate, LockTimeout, Name, Reference, Text, Version


def shown(title: str, description: str, **schema: Any) -> FieldInfo:
    """How a form draws a field. schema: more of its JSON schema, which calls in here do not see."""
    return Field(json_schema_extra={"title": title, "description": description, **schema})


def choice() -> dict[str, list[str]]:
    """The targets as a drop-down; nothing where airlock.toml cannot be read."""
    try:
        names = list(settings.load().targets)
    except AirlockError:
        # The module is imported where no project is, too. The flow will say what is wrong.
        return {}
    return {"enum": names} if names else {}


# In JSON schema only: the core refuses an unknown target in its own words.
TargetName = Annotated[
    str, shown("Target", "The environment, as airlock.toml names it.", **choice())
]
AnyTarget = Annotated[
    TargetName | None,
    shown("Target", "The environment, as airlock.toml names it; all of them if empty."),
]
UpTo = Annotated[
    Version | None,
    shown("Up to migration", "The number of the last migration to apply; all that wait if empty."),
]
ReleaseRef = Annotated[
    Reference | None,
    shown(
        "Release",
        "Commit, tag or branch of the service to run afterwards. If empty, the release that runs "
        "stays. working-tree: the files that are in the service's own folder, committed or not.",
    ),
]
DeployNumber = Annotated[
    Version | None,
    shown(
        "Deploy number",
        "The deploy that is meant, as airlock history has it; refused if another one came after "
        "it. The last one if empty.",
    ),
]
Reason = Annotated[
    Text,
    shown(
        "Reason",
        "Why. It stands in the ledger, the report and alerts. Some targets require it, and so "
        "does leaving checks out.",
    ),
]
Requester = Annotated[
    Name, shown("Your name", "Prefect does not say who you are; the ledger should know.")
]
DryRun = Annotated[bool, shown("Dry run", "Stop after the rehearsal. The target is not touched.")]
Ask = Annotated[
    bool,
    shown(
        "Ask before production",
        "Wait for a person's approval after the rehearsal, even where the target would not ask. "
        "Where the target asks, it asks in any case.",
    ),
]
LockBudget = Annotated[
    LockTimeout | None,
    shown(
        "Lock budget in ms",
        "How long one try may wait for a lock, 10 to 60000, while everybody queues behind it. "
        "The target's own budget if empty.",
    ),
]
Skip = Annotated[
    tuple[Gate, ...],
    shown(
        "Leave out",
        "Checks to leave out; each needs a reason. drift: the schema is what the last deploy "
        "left. lock_budget: on the clone nobody was kept waiting for longer than max_block_ms. "
        "smoke: endpoints answer as expected. log_errors: no new errors in the service's log. "
        "bake: nothing bad for a while after that.",
        uniqueItems=True,
    ),
]
