"""What a rule found in one place, and how much it matters."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

LevelName = Literal["off", "info", "warning", "error"]
Group = Literal[
    "locks", "constraints", "indexes", "transactions", "contracts", "types", "rights", "files"
]


class Level(IntEnum):
    """How much a finding matters; ``never`` blocks nothing."""

    OFF = 0
    INFO = 1
    WARNING = 2
    ERROR = 3
    NEVER = 4

    @property
    def word(self) -> str:
        """Such as ``error``."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Level:
        return cls[word.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule says about one statement.

    line: where the statement begins, from 1.
    remedy: SQL to write instead; what is prose in it stands in comment lines.
    source: the page of PostgreSQL's manual, or empty.
    allowed: the reason that the file gives for leaving it so; empty where it gives none.
    """

    file: str
    line: int
    rule: str
    level: Level
    message: str
    remedy: str
    source: str = ""
    allowed: str = ""

    def to_dict(self) -> dict[str, str | int]:
        """The finding as it is printed in JSON; the source is the remedy's last line."""
        remedy = f"{self.remedy}\n-- {self.source}" if self.source else self.remedy
        return {
            "file": self.file,
            "line": self.line,
            "rule": self.rule,
            "level": self.level.word,
            "message": self.message,
            "remedy": remedy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a target makes of the rules.

    fail_on: the level from which on findings are an obstacle.
    levels: of rules whose own level is not wanted.
    large_rows: from how many rows on a table is too large for one UPDATE or DELETE.
    """

    fail_on: Level = Level.ERROR
    levels: dict[str, Level] = field(default_factory=dict[str, Level])
    large_rows: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that was found in some files. history: of them were only read to know what is there."""

    files: int
    history: int
    findings: tuple[Finding, ...]
    allowed: tuple[Finding, ...]

    def blocks(self, level: Level) -> bool:
        """Whether something is found at this level or above it."""
        return any(finding.level >= level for finding in self.findings)
