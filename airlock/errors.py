"""Errors named by their remedy.

Every message says what was found, what was expected, and what to do.
"""

from airlock.visible import visible


class AirlockError(Exception):
    """Something that a deploy can meet. Catch one of the four kinds below."""

    def __init__(self, message: str) -> None:
        # It may quote what others wrote, and ends in terminals, logs and both UIs.
        super().__init__(visible(message))


class Refused(AirlockError):
    """Nothing changed. Fix the input and start again."""


class Transient(AirlockError):
    """Nothing changed. The same call may succeed later."""


class Broken(AirlockError):
    """Something changed and is not as it should be. Roll back."""


class Stranded(AirlockError):
    """Rolling back failed as well. A person must look."""


# What there is to do about a ledger that something else has written.
LEDGER_REMEDY = (
    "It was changed by something other than Airlock. Put it right as docs/operations.md says "
    "(A damaged ledger), then run the same command again."
)


class Unreadable(Refused):
    """The ledger holds what Airlock has not written, or lacks what it needs."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}. {LEDGER_REMEDY}")


class LeaseLost(Refused):
    """Another runner has taken this deploy over. This one may do nothing more."""
