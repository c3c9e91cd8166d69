"""The ``airlock`` command line. Exit status: 0 done, 1 refused, 2 rolled back, 3 stranded.

Reading commands import no Prefect and answer at once; acting ones hand over to the flow.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from airlock import files, migration, permissions, settings
from airlock.batch import Backfill
from airlock.effects import Segment
from airlock.errors import AirlockError, Broken, Refused, Stranded
from airlock.request import DeployRequest, Gate, RefreshRequest, checked
from airlock.visible import visible

if TYPE_CHECKING:
    from airlock.drift import DriftReport
    from airlock.effects import World
    from airlock.ledger import Deploy
    from airlock.lint import Outcome
    from airlock.masking import Table
    from airlock.plan import Plan
    from airlock.review import Known

T = TypeVar("T")
GATES: tuple[Gate, ...] = get_args(Gate)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="PostgreSQL schema deploys, rehearsed on a restored copy of production.",
    pretty_exceptions_enable=False,
)

mask = typer.Typer(no_args_is_help=True, help="The rules that make a copy safe to look at.")
app.add_typer(mask, name="mask")
automations = typer.Typer(no_args_is_help=True, help="What the Prefect server does by itself.")
app.add_typer(automations, name="automations")

TargetName = Annotated[str, typer.Argument(help="A target of airlock.toml.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
NOTHING = "nothing to recover"
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger and the alert.")]


def main() -> None:
    """Run the command line; our errors become one message and an exit status."""
    permissions.make_private()
    try:
        app()
    except AirlockError as error:
        _say(f"airlock: {error}", err=True)
        sys.exit(3 if isinstance(error, Stranded) else 2 if isinstance(error, Broken) else 1)
    except SystemExit as end:
        # Typer's status for a wrong command line is 2, which here would say "rolled back".
        sys.exit(1 if end.code == 2 else end.code)


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    from airlock import postgres

    with postgres.translated("asking the database"):
        return asyncio.run(work)


def _say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print; in what others wrote (SQL, names, reasons), nothing that a terminal would obey."""
    typer.echo(visible(text), err=err, nl=nl)


def _print(value: object) -> None:
    _say(json.dumps(value, indent=2, default=str, ensure_ascii=False))


# ---------------------------------------------------------------- files


@app.command()
def new(
    description: Annotated[str, typer.Argument(help="What it does, in a few words.")],
    phase: Annotated[
        migration.Phase,
        typer.Option(help="When it is applied: before the new release, or after it is healthy."),
    ] = "expand",
) -> None:
    """Create the next migration file from the template."""
    project = settings.load()
    slug = migration.slug(description)
    if not slug:
        raise Refused(f"{description!r} gives no file name. Describe the change in letters.")
    title = " ".join(description.split())
    files = migration.read_folder(project.migrations_dir)
    version = max((file.version for file in files), default=0) + 1
    path = project.migrations_dir / f"{version:03d}_{slug}.sql"
    path.write_text(
        migration.TEMPLATE.format(
            version=version,
            title=title[:1].upper() + title[1:],
            author=_requester(),
            date=f"{datetime.now().astimezone():%Y-%m-%d}",
            phase="-- Phase: contract\n" if phase == "contract" else "",
        ),
        encoding="utf-8",
    )
    path.chmod(0o666 & ~permissions.callers_umask())
    _say(f"{path}\nWrite the SQL and its rollback notes, then: airlock lint")


Format = Literal["text", "json", "sarif", "github"]


@app.command()
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files, folders, or - for a pipe; what is not deployed by default."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Its levels, and its database's tables and their sizes.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Look at this database's tables: a URL, or a target's name.")
    ] = None,
    pg: Annotated[
        int, typer.Option(min=13, max=18, help="PostgreSQL's version, without a database.")
    ] = 16,
    output: Annotated[Format, typer.Option("--format", help="How findings are printed.")] = "text",
    as_json: AsJson = False,
    rules: Annotated[bool, typer.Option("--rules", help="List all rules.")] = False,
) -> None:
    """Say what migrations would lock, lose or break, and write the safe way beside it.

    Works on any .sql file. Exit status 1 when a finding is at the blocking level.
    """
    from airlock import review
    from airlock.lint import Policy, render

    form = "json" if as_json else output
    if rules:
        _say(render.rules_as_json() if form == "json" else render.rules())
        return
    project = _project_of(files, target)
    chosen = project.target(target) if project and target else None
    policy = review.policy(chosen.lint) if chosen else Policy()
    known = _known(chosen, database)
    found = review.review(files or (), project, policy, known, pg)
    shown = {
        "text": render.text,
        "json": render.as_json,
        "sarif": render.sarif,
        "github": render.github,
    }[form](found)
    if shown:
        _say(shown)
    if form == "text" and not files and known is None and project and not project.lint_after:
        _say("All were taken for one release. What is pending on a target: --target NAME")
    raise typer.Exit(1 if found.blocks(policy.fail_on) else 0)


def _project_of(files: list[Path] | None, target: str | None) -> settings.Project | None:
    """The project of this folder; files that are named need none."""
    try:
        path = settings.config_path()
    except Refused:
        if files and not target:
            return None
        raise
    return settings.load(path)


def _known(target: settings.Target | None, database: str | None) -> Known | None:
    """What a database says, where one is named."""
    from airlock.review import look

    if database is not None:
        url = database if "://" in database else settings.target(database).database_url
    elif target is not None:
        try:
            url = target.database_url
        except Refused as missing:
            _say(f"Sizes, and what is deployed, are not known. {missing}", err=True)
            return None
    else:
        return None
    return _run(look(url))


@app.command()
def effects(
    file: Annotated[Path, typer.Argument(help="A file of SQL statements; - reads from a pipe.")],
    database: Annotated[
        str | None, typer.Option(help="Look at this database's tables: a URL, or a target's name.")
    ] = None,
    pg: Annotated[int, typer.Option(min=13, max=18, help="Version, without a database.")] = 18,
    as_json: AsJson = False,
) -> None:
    """Predict what each statement locks, rewrites, reads and drops. Changes nothing."""
    from airlock.effects import predict, render

    source = "the statements" if str(file) == "-" else file.name
    parsed = migration.statements_of(source, _read_text(file))
    found = predict(parsed, _world(database, pg))
    if as_json:
        return _print(render.as_data(found))
    _say("\n".join(render.as_text(found)) or "No statements.")
    return None


def _read_text(file: Path) -> str:
    try:
        piped = str(file) == "-"
        content = sys.stdin.buffer.read() if piped else files.read(file, most=migration.MOST_BYTES)
        return content.decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}. Name a file of SQL.") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is not UTF-8. Save it as UTF-8.") from error


def _world(database: str | None, major: int) -> World:
    """What is in the database, or nothing but a version."""
    from airlock.effects import World

    if database is None:
        return World(major=major)
    url = database if "://" in database else settings.target(database).database_url

    async def read() -> World:
        from airlock import postgres
        from airlock.surroundings import read_world

        async with postgres.connect(url, purpose="effects", limit_s=postgres.CATALOGUE_S) as conn:
            return await read_world(conn)

    return _run(read())


# ---------------------------------------------------------------- looking


@app.command()
def plan(
    target: TargetName,
    up_to: Annotated[int | None, typer.Option(help="The last migration to apply.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a deploy would apply. Changes nothing."""
    from airlock.preview import preview

    chosen = settings.target(target)
    planned = _run(preview(chosen, up_to=up_to))
    found = _linted(chosen, planned) if planned.migrations else None
    if as_json:
        _print({**_plan_as_json(planned), "findings": len(found.findings) if found else 0})
        return
    _say(f"{target} stands at {planned.head or 'nothing'}.")
    if not planned.migrations:
        _say("Nothing to do.")
        return
    for each in planned.migrations:
        when = "  (contract: after the release is healthy)" if each.phase == "contract" else ""
        _say(f"  {each.label}  {each.purpose or each.title}{when}")
        for segment in migration.script(each.forward):
            for statement in segment.statements:
                _say(f"      {statement.line:>4}  {statement.summary}{_apart(segment)}")
    if found and found.findings:
        from airlock.lint import render

        said = f"Lint, by the text alone: {render.summary(found)}"
        _say(f"{said} With sizes: airlock lint --target {target}")
    _say(f"Rehearse and apply them: airlock deploy {target}")


def _linted(target: settings.Target, planned: Plan) -> Outcome:
    from airlock import review

    return review.review_plan(target, planned)


def _apart(segment: Segment) -> str:
    """How a statement is run, where that is not in its migration's one transaction."""
    if isinstance(segment, Backfill):
        said = segment.header
        return f"  (in batches of up to {said.batch:,} rows by {said.key})"
    return "" if segment.transactional else "  (outside a transaction)"


def _plan_as_json(planned: Plan) -> dict[str, object]:
    return {
        "target": planned.target,
        "head": planned.head,
        "schema_before": planned.schema_before,
        "pending": [
            {
                "version": each.version,
                "file": each.file,
                "purpose": each.purpose,
                "phase": each.phase,
                "checksum": each.checksum,
                "statements": [
                    {
                        "line": s.line,
                        "statement": s.summary,
                        "in_transaction": segment.transactional,
                    }
                    for segment in migration.script(each.forward)
                    for s in segment.statements
                ],
            }
            for each in planned.migrations
        ],
    }


@app.command()
def status(
    target: Annotated[str | None, typer.Argument(help="A target; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show where each target stands, and what it waits for."""
    project = settings.load()
    chosen = [project.target(target)] if target else list(project.targets.values())
    asked = _ask_for_schedules(project)
    found = [_run(_status(each)) for each in chosen]
    schedules = _schedules(asked)
    if as_json:
        _print([{**each, "schedules": schedules} for each in found])
        return
    for each in found:
        _say(f"{each['target']}: {each['says']}")
    if schedules is not None:
        _say(f"schedules: {schedules['says']}")


def _ask_for_schedules(project: settings.Project, *arguments: str) -> Popen[str] | None:
    """Have a module above us ask the Prefect server meanwhile; None where none is known."""
    named = os.environ.get("PREFECT_API_URL")
    if not named and not (project.state_dir / "prefect" / "api-url").is_file():
        return None
    command = [sys.executable, "-m", "flows.schedules", *arguments]
    return Popen(command, env=_environment(), stdout=PIPE, text=True)


def _schedules(asked: Popen[str] | None) -> dict[str, Any] | None:
    """What it found: in words, and what is wrong."""
    if asked is None:
        return None
    with asked:
        answer, _ = asked.communicate()
    return json.loads(answer) if answer else None


async def _status(target: settings.Target) -> dict[str, object]:
    from airlock import ledger
    from airlock.alert import letters

    try:
        async with ledger.connection(target) as conn:
            applied = await ledger.applied(conn)
            last = await ledger.recent(conn)
            filling = await ledger.backfills(conn, last[0].id) if last else ()
            waiting = await letters.outstanding(conn, target)
            given_up = await letters.given_up(conn, target)
    except AirlockError as error:
        said = "\n  ".join(dict.fromkeys([str(error), *_exposed(target)]))
        return {"target": target.name, "says": said, "error": str(error)}
    failed = [f"{d.channel}: {d.last_error}" for each in waiting if (d := each.delivery).last_error]
    done = {row.version for row in applied}
    files = migration.read_folder(target.migrations_dir)
    pending = [file.file for file in files if file.version not in done]
    says = f"stands at {applied[-1].label if applied else 'nothing'}, {len(pending)} pending"
    if last:
        says += f"; last: deploy {last[0].id}, {last[0].headline}"
        if last[0].is_open:
            says += f"\n  held by {last[0].holder}, heartbeat {last[0].heartbeat_at:%H:%M:%S} UTC"
            says += "".join(f"\n  {each.label}: {each.sentence()}" for each in filling)
            says += f"\n  {last[0].next_command}"
    if target.allow_plaintext:
        says += "\n  allow_plaintext: other machines may be reached without TLS"
    if waiting:
        says += f"\n  {len(waiting)} alert deliver{'ies wait' if len(waiting) > 1 else 'y waits'}"
        says += f": {failed[-1]}. Now: airlock deliver {target.name} --force" if failed else ""
    if given_up:
        lost = given_up[-1]
        says += f"\n  {len(given_up)} of the last days given up: {lost.channel}: {lost.last_error}"
    says += "".join(f"\n  {problem}" for problem in _exposed(target))
    return {
        "target": target.name,
        "says": says,
        "head": applied[-1].label if applied else None,
        "pending": pending,
        "last_deploy": _deploy_as_json(last[0]) if last else None,
        "backfills": [{"label": each.label, "says": each.sentence()} for each in filling],
        "alerts_waiting": len(waiting),
        "alerts_given_up": len(given_up),
        "last_alert_error": failed[-1] if failed else None,
    }


def _exposed(target: settings.Target) -> list[str]:
    """Why the next deploy will not read the env files, if it will not."""
    try:
        settings.check_env_files(target)
    except Refused as error:
        return [str(error)]
    return []


@app.command()
def history(
    target: TargetName,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the deploys of a target, newest first, and the four measures of delivery (DORA)."""
    from airlock import dora

    found = _run(dora.read(settings.target(target), limit=limit))
    if as_json:
        deploys = [_deploy_as_json(row) for row in found.recent]
        _print({"target": target, "deploys": deploys, "dora": found.dora.to_dict()})
        return
    if not found.recent:
        _say(f"Nothing was deployed to {target} yet. Start: airlock plan {target}")
        return
    for row in found.recent:
        who = f"  {row.requester}" if row.requester else ""
        _say(f"{row.id:>5}  {row.created_at:%Y-%m-%d %H:%M}  {row.headline}{who}")
    _say("")
    for measure in found.dora.measures:
        _say(f"{measure.name + ':':22} {measure.value:>13}  {measure.meaning}")


async def _recent(target: settings.Target, limit: int) -> tuple[Deploy, ...]:
    from airlock import ledger

    async with ledger.connection(target) as conn:
        return await ledger.recent(conn, limit=limit)


def _deploy_as_json(row: Deploy) -> dict[str, object]:
    return {
        "id": row.id,
        "target": row.target,
        "state": row.state,
        "headline": row.headline,
        "versions": row.planned.versions,
        "requester": row.requester,
        "reason": row.reason,
        "created_at": row.created_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
        "failed_step": row.failed_step,
        "failure": row.failure,
    }


@app.command()
def drift(
    target: Annotated[str | None, typer.Argument(help="A target; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare each schema with what the last deploy left. Exit status 1 where they differ."""
    project = settings.load()
    chosen = [project.target(target)] if target else list(project.targets.values())
    reports = [_run(_drift(each)) for each in chosen]
    if as_json:
        _print([report.to_dict() for report in reports])
    for report in reports if not as_json else ():
        _say(report.text)
    raise typer.Exit(1 if any(report.drifted or report.failure for report in reports) else 0)


async def _drift(target: settings.Target) -> DriftReport:
    from airlock.drift import DriftReport, look

    try:
        return await look(target)
    except AirlockError as error:
        return DriftReport(target=target.name, failure=str(error))


@app.command("report")
def show_report(
    target: TargetName,
    number: Annotated[int | None, typer.Argument(help="The deploy; the last by default.")] = None,
    as_html: Annotated[
        bool, typer.Option("--html", help="Write one HTML file with everything in it.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The HTML file; in the state folder by default.")
    ] = None,
) -> None:
    """Print a deploy's report as markdown, with the runbook's checklist, or write it as HTML."""
    from airlock import deploy as steps
    from airlock import html, report

    chosen = settings.target(target)
    if number is None:
        last = _run(_recent(chosen, 1))
        if not last:
            raise Refused(f"Nothing was deployed to {target} yet. Start: airlock plan {target}")
        number = last[0].id
    found = _run(steps.read_report(chosen, number))
    if not as_html and output is None:
        _say(report.markdown(found))
        return
    path = output or chosen.state_dir / target / "reports" / f"{number}.html"
    try:
        html.write(path, html.page(found))
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    _say(f"The report of deploy {number} is in {path}")


@app.command()
def metrics(
    target: Annotated[str | None, typer.Argument(help="A target; all by default.")] = None,
) -> None:
    """Print what the ledgers know in numbers, in the text form that Prometheus reads."""
    from airlock import metrics

    project = settings.load()
    chosen = [project.target(target)] if target else list(project.targets.values())
    measured = [_run(metrics.read(each)) for each in chosen]
    _say(metrics.render(measured), nl=False)


@mask.command("draft")
def mask_draft(target: TargetName) -> None:
    """Propose a rule for every column of the refresh's source. Reads its catalogue, no data."""
    from airlock import masking

    chosen = settings.target(target)
    if chosen.refresh is None:
        raise Refused(
            f"{target} has no [targets.{target}.refresh], so it is not known what is masked for "
            'it. Add the section with source = "…".'
        )
    rules = masking.read_rules(chosen)
    tables = _run(_tables(settings.target(chosen.refresh.source)))
    _say(masking.draft(tables, target=target, classified=rules), nl=False)


async def _tables(source: settings.Target) -> tuple[Table, ...]:
    from airlock import masked_copy, postgres

    async with postgres.connect(
        source.database_url, purpose="mask draft", limit_s=postgres.CATALOGUE_S
    ) as conn:
        return await masked_copy.read_tables(conn)


# ---------------------------------------------------------------- acting


@app.command()
def deploy(
    target: TargetName,
    up_to: Annotated[int | None, typer.Option(help="The last migration to apply.")] = None,
    release: Annotated[
        str | None,
        typer.Option(
            help="Commit, tag or branch of the service to run afterwards, or working-tree; the one "
            "that runs stays by default."
        ),
    ] = None,
    reason: Reason = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the rehearsal.")] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="Wait for approval after the rehearsal in any case.")
    ] = False,
    lock_timeout_ms: Annotated[
        int | None, typer.Option(min=10, max=60_000, help="For one lock, instead of the budget's.")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(help=f"A check to leave out: {', '.join(GATES)}. Repeatable; with --reason."),
    ] = None,
) -> None:
    """Rehearse the pending migrations on a restored copy, then apply them and restart."""
    from airlock.approval import check_reason
    from airlock.preview import preview

    # The same checks as the flow's first step, before the seconds that Prefect takes to start.
    chosen, left_out = settings.target(target), _gates(skip or [])
    checked(DeployRequest, target=target, release=release, reason=reason, requester=_requester())
    check_reason(chosen, reason, skip=left_out)
    if not _run(_is_cut_off(chosen)):
        planned = _run(preview(chosen, up_to=up_to, skip=left_out))
        if not planned.migrations and release is None:
            _say(f"{target} stands at {planned.head or 'nothing'}. Nothing to do.")
            return
    parameters = {
        "up_to": up_to,
        "release": release,
        "dry_run": dry_run,
        "ask": ask,
        "lock_timeout_ms": lock_timeout_ms,
        "skip": left_out,
    }
    _hand_over("deploy", target, reason, parameters)


async def _is_cut_off(target: settings.Target) -> bool:
    """Whether a deploy was left unfinished, which the next one takes up first."""
    return any(row.is_cut_off for row in await _recent(target, 1))


def _gates(names: list[str]) -> list[Gate]:
    for name in names:
        if name not in GATES:
            raise Refused(f"There is no check {name!r} to leave out; there are {', '.join(GATES)}.")
    return [gate for gate in GATES if gate in names]


@app.command()
def refresh(
    target: TargetName,
    fresh_snapshot: Annotated[
        bool, typer.Option("--fresh-snapshot", help="Take one now, even where one is young enough.")
    ] = False,
    reason: Reason = "",
) -> None:
    """Replace a target's database by a masked copy of the one that its settings name."""
    from airlock.refresh import configured

    # As in the flow, before the seconds that Prefect takes to start.
    configured(settings.target(target))
    checked(RefreshRequest, target=target, reason=reason, requester=_requester())
    _hand_over("refresh", target, reason, {"fresh_snapshot": fresh_snapshot})


@app.command()
def rollback(
    target: TargetName,
    number: Annotated[
        int | None,
        typer.Argument(min=1, help="The deploy that is meant; refused if another came after it."),
    ] = None,
    reason: Reason = "",
) -> None:
    """Undo the last deploy: its migrations newest first, and its release."""
    from airlock.approval import check_reason

    check_reason(settings.target(target), reason)
    _hand_over("rollback", target, reason, {"number": number})


@app.command()
def recover(
    target: Annotated[str | None, typer.Argument(help="A target; all by default.")] = None,
) -> None:
    """Finish or undo, by rule, what was left open by a runner that is gone."""
    project = settings.load()
    chosen = [project.target(target)] if target else list(project.targets.values())
    # Before the seconds that Prefect takes to start: mostly there is nothing to do.
    found = [_run(_left_open(each)) for each in chosen]
    if any(row is not None and row.is_cut_off for row, _ in found):
        _become_flow("recover", {"target": target})
    for each, (_, said) in zip(chosen, found, strict=True):
        _say(f"{each.name}: {said}")
    raise typer.Exit(1 if target and not found[0][1].startswith(NOTHING) else 0)


async def _left_open(target: settings.Target) -> tuple[Deploy | None, str]:
    """The last deploy, if one can be seen, and what is to be said of it."""
    from airlock import ledger

    try:
        async with ledger.connection(target) as conn:
            last = await ledger.last(conn)
    except AirlockError as error:
        return None, str(error)
    if last is None:
        return None, f"{NOTHING}: nothing was deployed yet"
    what_next = f". Next: {last.next_command}" if last.is_open else ""
    return last, f"{NOTHING}: {last.headline}{what_next}"


@app.command()
def approve(target: TargetName, reason: Reason = "") -> None:
    """Let the deploy that waits for a decision go on to production."""
    _answer("approve", target, reason)


@app.command()
def reject(target: TargetName, reason: Reason = "") -> None:
    """End the deploy that waits for a decision; the target stays as it is."""
    _answer("reject", target, reason)


def _answer(decision: str, target: str, reason: str) -> None:
    from airlock.deploy import asked

    # Before the seconds that Prefect takes to start.
    _run(asked(settings.target(target)))
    _hand_over(decision, target, reason, {})


@app.command()
def deliver(
    target: Annotated[str | None, typer.Argument(help="A target; all by default.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was tried a moment ago.")
    ] = False,
) -> None:
    """Send the alerts that wait in the outbox, and show what still waits.

    Whether schedules start what they should is looked at as well: it needs to be told, too.
    """
    from airlock import outbox

    project = settings.load()
    chosen = [project.target(target)] if target else list(project.targets.values())
    found = _schedules(_ask_for_schedules(project, "--twice"))
    if found is not None:
        _run(outbox.schedules_looked_at(found["problems"]))
    for each in chosen:
        for line in _run(_deliver(each, force=force)):
            _say(f"{each.name}: {line}")


async def _deliver(target: settings.Target, *, force: bool) -> list[str]:
    from airlock import ledger, outbox
    from airlock.alert import letters

    try:
        tried = await outbox.deliver(target.name, force=force)
        async with ledger.connection(target) as conn:
            waiting = await letters.outstanding(conn, target)
    except AirlockError as error:
        return [str(error)]
    taken = [str(each) for each in tried if each.delivery.taken or each.is_given_up]
    left = [f"{letter}; again in {letter.due_in_s:.0f} s" for letter in waiting]
    return [*taken, *left] or ["nothing waits"]


@automations.command("apply")
def apply_automations() -> None:
    """Create or update Airlock's automations on the Prefect server.

    The server is the one of PREFECT_API_URL, or that of `make serve`. `make serve` does this too.
    """
    _become("flows.publish", "--automations")


@app.command()
def ui(
    link: Annotated[
        bool, typer.Option("--print", help="Print a link that opens it once, for minutes.")
    ] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make another auth string, for the next start.")
    ] = False,
) -> None:
    """Open Prefect's UI in the browser, without typing the auth string of `make serve`."""
    _become("flows.ui", *(["--print"] if link else []), *(["--rotate"] if rotate else []))


def _hand_over(flow: str, target: str, reason: str, parameters: Mapping[str, object]) -> None:
    given = {"target": target, "reason": reason, "requester": _requester(), **parameters}
    _become_flow(flow, given)


def _become_flow(flow: str, given: Mapping[str, object]) -> None:
    _become("flows", flow, json.dumps(given))


def _become(module: str, *arguments: str) -> None:
    """Become the process of a module above us. It imports us, so we do not import it."""
    sys.stdout.flush()
    command = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, command, _environment())  # noqa: S606 – no shell is the point


def _environment() -> dict[str, str]:
    """What such a module needs to find itself, and the project that we have found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_checkout()), *_python_path()])}
    environment.setdefault(settings.CONFIG_VARIABLE, str(settings.config_path()))
    return environment


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _requester() -> str:
    return os.environ.get("AIRLOCK_REQUESTER") or os.environ.get("USER") or "somebody"


if __name__ == "__main__":
    main()
