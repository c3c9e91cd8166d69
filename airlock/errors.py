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


class LeaseLost(Refused):
    """Another runner has taken this deploy over. This one may do nothing more."""
