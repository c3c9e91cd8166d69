"""Rules: small functions that are asked about statements of the kinds that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from airlock.lint.finding import Group, Level, LevelName

if TYPE_CHECKING:
    from airlock.lint.release import Release
    from airlock.lint.site import Site

_MANUAL = "https://www.postgresql.org/docs/current/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a rule has to say. site: the place, where it is not the one that was asked about."""

    message: str
    remedy: str
    site: Site | None = None
    level: Level | None = None  # where it is not the rule's


Problems: TypeAlias = "Iterator[Problem]"
SiteCheck: TypeAlias = "Callable[[Site], Problems]"
ReleaseCheck: TypeAlias = "Callable[[Release], Problems]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. summary: what it finds, for a list. source: where the manual says why."""

    id: str
    group: Group
    level: Level
    summary: str
    source: str


RULES: dict[str, Rule] = {}
# By the kind of statement, or of an ALTER TABLE's command; "" for every statement.
SITE_CHECKS: dict[str, list[tuple[Rule, SiteCheck]]] = {}
RELEASE_CHECKS: list[tuple[Rule, ReleaseCheck]] = []


def define(id_: str, level: LevelName, summary: str, manual: str, group: Group) -> Rule:
    """A rule that is found out elsewhere than by looking at a statement."""
    source = _MANUAL + manual if manual else ""
    made = Rule(id=id_, group=group, level=Level.of(level), summary=summary, source=source)
    RULES[id_] = made
    return made


def rule(
    id_: str, level: LevelName, summary: str, manual: str, *, on: str | tuple[str, ...] = ""
) -> Callable[[SiteCheck], SiteCheck]:
    """Register a function that is asked about each statement of the kinds in ``on``.

    on: kinds of statements (``IndexStmt``) or commands of ALTER TABLE (``AT_AddColumn``); every
        statement by default.
    manual: the page of the manual, with its anchor.
    """

    def register(check: SiteCheck) -> SiteCheck:
        made = define(id_, level, summary, manual, _group(check))
        for kind in (on,) if isinstance(on, str) else on:
            SITE_CHECKS.setdefault(kind, []).append((made, check))
        return check

    return register


def release_rule(
    id_: str, level: LevelName, summary: str, manual: str
) -> Callable[[ReleaseCheck], ReleaseCheck]:
    """Register a function that is asked once about all files together."""

    def register(check: ReleaseCheck) -> ReleaseCheck:
        RELEASE_CHECKS.append((define(id_, level, summary, manual, _group(check)), check))
        return check

    return register


def _group(check: Callable[..., Problems]) -> Group:
    return check.__module__.rpartition(".")[2]  # pyright: ignore[reportReturnType]
