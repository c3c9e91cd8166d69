"""Errors named by their remedy.

Every message says what was found, what was expected, and what to do.
"""


class AirlockError(Exception):
    """Something that a deploy can meet. Catch one of the four kinds below."""


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
