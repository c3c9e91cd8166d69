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


class LeaseLost(Refused):
    """Another runner has taken this deploy over. This one may do nothing more."""
