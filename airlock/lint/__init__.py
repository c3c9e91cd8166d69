"""What is dangerous about a change, said before it runs, with the safe way beside it.

Rules look at statements, at what is predicted of them, and at the files that go together.
"""

from airlock.lint.check import FILE, HEADER, lint
from airlock.lint.finding import Finding, Level, Outcome, Policy
from airlock.lint.rule import RULES, Rule
from airlock.lint.script import Script, exceptions, read

__all__ = [
    "FILE",
    "HEADER",
    "RULES",
    "Finding",
    "Level",
    "Outcome",
    "Policy",
    "Rule",
    "Script",
    "exceptions",
    "lint",
    "read",
]
