"""Asks every rule about every statement, in the order in which the statements would run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from airlock.effects import World, predict_one
from airlock.lint import constraints, contracts, indexes, locks, rights, transactions, types
from airlock.lint.above import Above
from airlock.lint.finding import Finding, Level, Outcome, Policy
from airlock.lint.release import Release
from airlock.lint.rule import RELEASE_CHECKS, RULES, SITE_CHECKS, Problem, Rule, define
from airlock.lint.script import Allow, Script
from airlock.lint.site import Site
from airlock.syntax import Statement

# A finding's line, rule and message.
_Said: TypeAlias = tuple[int, str, str]

# Imported for the rules that they register.
_GROUPS = (constraints, contracts, indexes, locks, rights, transactions, types)
# One of these says already what a wider rule would say again.
_WIDER = {
    "locked-while-working": ("locks", "constraints", "indexes"),
    "breaks-running-code": ("locks", "contracts"),
    "unbatched-change": ("transactions",),
    "statements-after-lock": ("constraints", "transactions"),
}

SYNTAX = define("syntax", "error", "PostgreSQL's grammar does not accept it", "", "files")
FILE = define("file", "error", "A deploy would refuse the file", "", "files")
HEADER = define("header", "error", "The header lacks Purpose, Author or Date", "", "files")
NO_REASON = define(
    "allow-without-reason", "error", "An exception does not say why, or names no rule", "", "files"
)
UNUSED = define("allow-unused", "warning", "An exception has nothing to let pass", "", "files")


def lint(scripts: Sequence[Script], world: World, policy: Policy) -> Outcome:
    """What the rules find in files that are deployed together, in this order.

    world: what is there before the first; it is another afterwards.
    """
    run = _Run(world=world, policy=policy, release=Release(world=world))
    for script in scripts:
        run.read(script)
        if script.history:
            _settle(world)
    run.release_checks()
    found = [each for script in scripts for each in run.judged(script)]
    return Outcome(
        files=len(scripts),
        history=sum(script.history for script in scripts),
        findings=tuple(each for each in found if not each.allowed),
        allowed=tuple(each for each in found if each.allowed),
    )


def _settle(world: World) -> None:
    """What was made is there and in use, and has nobody knows how many rows."""
    for index in world.indexes.values():
        index.new = False
    for relation in world.relations.values():
        if relation.new:
            relation.new, relation.rows, relation.size_bytes = False, None, None


@dataclass(slots=True, kw_only=True)
class _Run:
    world: World
    policy: Policy
    release: Release
    found: dict[str, dict[_Said, Finding]] = field(default_factory=dict[str, dict[_Said, Finding]])

    def read(self, script: Script) -> None:
        self.found[script.file] = {}
        above = Above()
        transaction: int | None = None
        for statement, place in zip(script.statements, script.places, strict=True):
            if place.transaction != transaction:
                above, transaction = Above(), place.transaction
            prediction = predict_one(statement, self.world)
            if not script.history:
                site = Site(
                    script=script,
                    place=place,
                    statement=statement,
                    prediction=prediction,
                    world=self.world,
                    policy=self.policy,
                    kind=statement.kind,
                    node=statement.node,
                    above=above,
                )
                self._statement(site)
            self.world.apply(statement)
            if transaction is not None:
                above.take(prediction, self.world)

    def _statement(self, site: Site) -> None:
        self.release.sites.append(site)
        parts = list(_commands(site)) or [site]
        seen = self._ask(site, site.kind) if parts[0] is not site else set[str]()
        for part in parts:
            self.release.take(part)
            mine = self._ask(part, part.kind)
            seen |= mine | self._ask(part, "*", mine)
        self._ask(site, "", seen)

    def _ask(self, site: Site, kind: str, seen: Iterable[str] = ()) -> set[str]:
        """Groups of the rules that found something. seen: of those that did before."""
        found = set(seen)
        for made, check in SITE_CHECKS.get(kind, ()):
            if found.isdisjoint(_WIDER.get(made.id, ())) and self._add(made, check(site), site):
                found.add(made.group)
        return found

    def _add(self, made: Rule, problems: Iterable[Problem], site: Site) -> bool:
        any_ = False
        for problem in problems:
            any_ = True
            place = problem.site or site
            found = self._finding(made, problem, place.script.file, place.statement.line)
            # A command of an ALTER TABLE may say what another has said.
            if found is not None:
                said = (found.line, found.rule, found.message)
                self.found[place.script.file].setdefault(said, found)
        return any_

    def _finding(self, made: Rule, problem: Problem, file: str, line: int) -> Finding | None:
        level = self.policy.levels.get(made.id, problem.level or made.level)
        if level is Level.OFF:
            return None
        return Finding(
            file=file,
            line=line,
            rule=made.id,
            level=level,
            message=problem.message,
            remedy=problem.remedy,
            source=made.source,
        )

    def release_checks(self) -> None:
        for made, check in RELEASE_CHECKS:
            for problem in check(self.release):
                if problem.site is not None:
                    self._add(made, (problem,), problem.site)

    def judged(self, script: Script) -> list[Finding]:
        """A file's findings by line, with what it lets pass, and what is wrong with that."""
        found = [_passed(each, script.allows) for each in self.found[script.file].values()]
        found += self._exceptions(script, found) if not script.history else ()
        for each in script.mistakes:
            problem = Problem(message=each.message, remedy=each.remedy)
            found += filter(None, [self._finding(SYNTAX, problem, script.file, each.line)])
        return sorted(found, key=lambda each: each.line)

    def _exceptions(self, script: Script, found: list[Finding]) -> Iterator[Finding]:
        used = {(each.line, each.rule) for each in found if each.allowed}
        for allow in script.allows:
            made, problem = _mistaken(allow, used)
            if problem and (finding := self._finding(made, problem, script.file, allow.line)):
                yield finding


def _commands(site: Site) -> Iterator[Site]:
    """Each command of an ALTER TABLE as a site of its own, with what it alone would do."""
    # A composite type's tables are changed with it, but the rules speak of the table that is named.
    if site.kind != "AlterTableStmt" or site.node.get("objtype") == "OBJECT_TYPE":
        return
    commands = site.node.get("cmds", ())
    for each in commands:
        prediction = site.prediction
        if len(commands) > 1:
            alone: Statement = replace(site.statement, node={**site.node, "cmds": [each]})
            prediction = replace(predict_one(alone, site.world), statement=site.statement)
        command = each["AlterTableCmd"]
        yield replace(site, prediction=prediction, kind=command["subtype"], node=command)


def _passed(finding: Finding, allows: Sequence[Allow]) -> Finding:
    for allow in allows:
        if (allow.statement, allow.rule) == (finding.line, finding.rule) and allow.reason:
            return replace(finding, allowed=allow.reason)
    return finding


def _mistaken(allow: Allow, used: set[tuple[int, str]]) -> tuple[Rule, Problem | None]:
    """What is wrong with an exception, if anything is."""
    form = "-- Above the statement: -- airlock: allow RULE because REASON"
    if not allow.rule or not allow.reason:
        message = "An exception says which rule, and why." if allow.rule else "No rule is named."
        return NO_REASON, Problem(message=message, remedy=form)
    if allow.rule not in RULES:
        message = f"There is no rule {allow.rule}."
        return NO_REASON, Problem(message=message, remedy="-- All rules: airlock lint --rules")
    if (allow.statement, allow.rule) not in used:
        message = f"{allow.rule} finds nothing in the statement below it."
        return UNUSED, Problem(message=message, remedy="-- Delete the line.")
    return UNUSED, None
