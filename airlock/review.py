"""Lints files: those that are named, or a project's migrations as far as they are not deployed.

docs/decisions/0015-lint.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airlock import lint, migration
from airlock.effects import World
from airlock.errors import AirlockError, Refused
from airlock.lint import Finding, Level, Outcome, Policy, Script

if TYPE_CHECKING:
    from airlock.plan import Plan
    from airlock.postgres import Conn
    from airlock.settings import LintSettings, Project, Target

MAJOR = 16
PIPE = Path("-")
_LINE = re.compile(r", line (\d+)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a database. applied: the versions of the migrations that it has."""

    world: World
    applied: frozenset[int] = frozenset()


def review(
    paths: Sequence[Path], project: Project | None, policy: Policy, known: Known | None, major: int
) -> Outcome:
    """What lint finds in the files, or in all migrations of the project where none is named.

    known: of the target's database; without it, nothing is known to be deployed but what lint_after
    says, and all files are taken for one release.
    """
    folder = project.migrations_dir.resolve() if project else None
    chosen = sorted(_expanded(paths), key=_order) if paths else _pending(project, known)
    after = project.lint_after if project and not paths and known is None else 0
    scripts: list[Script] = []
    problems: list[Finding] = []
    for path in chosen:
        shown = _shown(path)
        try:
            text = sys.stdin.read() if path == PIPE else migration.read_text(path)
        except Refused as error:
            problems.append(_problem(shown, error))
            continue
        scripts.append(lint.read(shown, text, history=_version(path) <= after))
        if folder == path.parent.resolve():
            problems += _file_problems(path, scripts[-1])
    world = known.world if known else World(major=major)
    found = lint.lint(scripts, world, policy)
    places = {_shown(path): number for number, path in enumerate(chosen)}
    findings = [*_levelled(problems, policy), *found.findings]
    findings.sort(key=lambda each: (places[each.file], each.line))
    return replace(found, files=len(chosen), findings=tuple(findings))


def _expanded(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from path.rglob("*.sql")
        else:
            yield path


def _order(path: Path) -> tuple[Path, int, str]:
    return path.parent, _version(path), path.name


def _version(path: Path) -> int:
    match = migration.NAME.fullmatch(path.name)
    return int(match["version"]) if match else 10**18


def _pending(project: Project | None, known: Known | None) -> list[Path]:
    if project is None:
        return []
    files = sorted(project.migrations_dir.glob("*.sql"), key=_order)
    return [path for path in files if known is None or _version(path) not in known.applied]


def _shown(path: Path) -> str:
    """The path from here, where it lies below."""
    if path == PIPE:
        return "-"
    try:
        return (path.parent.resolve() / path.name).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _file_problems(path: Path, script: Script) -> Iterator[Finding]:
    """What a deploy would refuse, or a reader would miss, in a file of the migrations folder."""
    try:
        parsed = migration.read(path)
    except AirlockError as error:
        # Said already, with its line.
        if not script.mistakes:
            yield _problem(script.file, error)
        return
    header = {"Purpose": parsed.purpose, "Author": parsed.author, "Date": parsed.date}
    if missing := [name for name, value in header.items() if not value]:
        yield Finding(
            file=script.file,
            line=1,
            rule=lint.HEADER.id,
            level=lint.HEADER.level,
            message=f"{path.name} has no {', '.join(missing)} in its header.",
            remedy="\n".join(f"-- {name}: …" for name in missing),
        )


def _problem(file: str, error: AirlockError) -> Finding:
    """A refusal as a finding: found and expected first, then what to do."""
    line = _LINE.search(str(error))
    message, _, remedy = str(error).partition(". ")
    return Finding(
        file=file,
        line=int(line[1]) if line else 1,
        rule=lint.FILE.id,
        level=lint.FILE.level,
        message=f"{message.rstrip('.')}.",
        remedy="\n".join(f"-- {each}" for each in remedy.split("\n")) if remedy else "",
    )


def _levelled(problems: Sequence[Finding], policy: Policy) -> Iterator[Finding]:
    for each in problems:
        level = policy.levels.get(each.rule, each.level)
        if level is not Level.OFF:
            yield replace(each, level=level)


# ---------------------------------------------------------------- a target's part


def policy(settings: LintSettings) -> Policy:
    """What a target's settings make of the rules. Raises Refused for a rule that is not there."""
    if unknown := sorted(settings.levels.keys() - lint.RULES.keys()):
        raise Refused(
            f"lint.levels names {', '.join(unknown)}, and there is no such rule. All rules: "
            "airlock lint --rules"
        )
    return Policy(
        fail_on=Level.of(settings.fail_on),
        levels={rule: Level.of(word) for rule, word in settings.levels.items()},
        large_rows=settings.large_rows,
    )


def review_plan(target: Target, plan: Plan) -> Outcome:
    """What lint finds in the migrations that a deploy would apply, from their text alone.

    Reading a database's tables as well would cost `airlock plan` its 0.4 s.
    """
    scripts = [lint.read(each.file, each.forward) for each in plan.migrations]
    return lint.lint(scripts, World(major=MAJOR), policy(target.lint))


async def look(url: str) -> Known:
    """The tables of a database and their sizes, and which migrations it has. Reads only."""
    from airlock import ledger
    from airlock.surroundings import read_world

    async with _connection(url) as conn:
        applied = await ledger.applied(conn)
        world = await read_world(conn)
    return Known(world=world, applied=frozenset(row.version for row in applied))


def _connection(url: str) -> AbstractAsyncContextManager[Conn]:
    from airlock import postgres

    return postgres.connect(url, purpose="lint", limit_s=postgres.CATALOGUE_S)
