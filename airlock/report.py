"""What a deploy leaves for people to read, made from the ledger alone: the alert and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from airlock import record
from airlock.alert import Alert
from airlock.catalogue import Attributes, Catalogue, SchemaDiff, diff
from airlock.effects import LockMode
from airlock.health import HealthVerdict
from airlock.ledger import Deploy, Event
from airlock.plan import AppliedMigration
from airlock.rehearsal import Rehearsal
from airlock.release import Release
from airlock.service import Restart
from airlock.snapshot import Snapshot

ERROR_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One step of the journal: when it began, how long it took, how it ended."""

    step: str
    began_at: datetime
    seconds: float | None  # None: it did not come to an end
    ended: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """One deploy with all that the ledger knows of it."""

    deploy: Deploy
    events: tuple[Event, ...]
    migrations: tuple[AppliedMigration, ...]
    schema_before: Catalogue | None
    schema_expected: Catalogue | None
    kept_rows: int

    @property
    def schema_diff(self) -> SchemaDiff | None:
        if self.schema_before is None or self.schema_expected is None:
            return None
        return diff(self.schema_before, self.schema_expected)

    @property
    def new_objects(self) -> Mapping[str, Attributes]:
        """What the plan brings, by catalogue key."""
        if self.schema_before is None or self.schema_expected is None:
            return {}
        old, new = self.schema_before.objects, self.schema_expected.objects
        return {key: new[key] for key in sorted(new.keys() - old.keys())}

    @property
    def rehearsal(self) -> Rehearsal | None:
        return record.load(Rehearsal, self.deploy.rehearsal) if self.deploy.rehearsal else None

    @property
    def snapshot(self) -> Snapshot | None:
        return record.load(Snapshot, self.deploy.snapshot) if self.deploy.snapshot else None

    @property
    def release(self) -> Release | None:
        return record.load(Release, self.deploy.release) if self.deploy.release else None

    @property
    def restart(self) -> Restart | None:
        return record.load(Restart, self.deploy.restart) if self.deploy.restart else None

    @property
    def health(self) -> HealthVerdict | None:
        return record.load(HealthVerdict, self.deploy.health) if self.deploy.health else None

    @property
    def steps(self) -> tuple[StepTime, ...]:
        """The journaled steps in order; each intent with the result that follows it."""
        open_steps: dict[str, datetime] = {}
        done: list[StepTime] = []
        for event in self.events:
            if event.phase == "intent":
                open_steps[event.step] = event.at
            elif event.step in open_steps:
                began = open_steps.pop(event.step)
                seconds = (event.at - began).total_seconds()
                done.append(
                    StepTime(step=event.step, began_at=began, seconds=seconds, ended=event.phase)
                )
        unfinished = [
            StepTime(step=step, began_at=at, seconds=None, ended="unfinished")
            for step, at in open_steps.items()
        ]
        return tuple(sorted([*done, *unfinished], key=lambda each: each.began_at))


def compose_alert(row: Deploy, *, kept_rows: int) -> Alert:
    """The alert about one deploy, from its row in the ledger."""
    snapshot = record.load(Snapshot, row.snapshot) if row.snapshot else None
    return Alert(
        headline=row.headline,
        target=row.target,
        deploy=row.id,
        state=row.state,
        versions=row.planned.versions,
        failed_step=row.failed_step or "",
        error=_short(row.failure or ""),
        requester=row.requester,
        reason=row.reason,
        kept_rows=kept_rows,
        snapshot=snapshot.id if snapshot else None,
        next_command=row.next_command,
    )


def _short(text: str) -> str:
    """The first line, which says what happened, and the last ones of what follows."""
    first, *rest = text.strip().splitlines() or [""]
    left_out = ["…"] if len(rest) > ERROR_LINES else []
    return "\n".join([first, *left_out, *rest[-ERROR_LINES:]])


# ---------------------------------------------------------------- markdown


def markdown(report: DeployReport) -> str:
    """The whole report, ending with the runbook's checklist."""
    row = report.deploy
    parts = [
        f"# {row.headline}",
        _facts(report),
        _failure(row),
        _steps(report.steps),
        _migrations(report),
        _statements(report.rehearsal),
        _schema(report.schema_diff),
        _checklist(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(report: DeployReport) -> str:
    row, rehearsal, snapshot = report.deploy, report.rehearsal, report.snapshot
    release, restart, health = report.release, report.restart, report.health
    facts = [
        ("Deploy", f"{row.id} of {row.target}, migrations {row.planned.versions}"),
        ("Started by", " – ".join(part for part in (row.requester, row.reason) if part)),
        (
            "Snapshot",
            f"{snapshot.id}, {snapshot.provider}, {snapshot.size_bytes / 2**20:,.1f} MiB in "
            f"{snapshot.seconds:.1f} s"
            if snapshot
            else "",
        ),
        (
            "Snapshot proved",
            f"restored and started in {rehearsal.restore_seconds:.1f} s, schema equal to "
            "production's"
            if rehearsal
            else "",
        ),
        ("Rollback, rehearsed", rehearsal.rollback_sentence if rehearsal else ""),
        ("Release", _release_sentence(release)),
        (
            "Restart",
            f"{restart.method}, ready in {restart.ready_s:.1f} s, longest gap "
            f"{restart.gap_s * 1000:.0f} ms. {restart.note}"
            if restart
            else "",
        ),
        ("Health", f"{health.verdict}: {health.summary}" if health else ""),
        ("Rows kept", f"{report.kept_rows:,} in airlock.kept" if report.kept_rows else ""),
    ]
    return _table(("", ""), [(name, text) for name, text in facts if text])


def _release_sentence(release: Release | None) -> str:
    if release is None:
        return ""
    if release.ref is None:
        return "the service's own folder; its code cannot go back"
    return f"{release.ref} ({(release.commit or '')[:12]})"


def _failure(row: Deploy) -> str:
    if row.failure is None:
        return ""
    where = f"Failed in {row.failed_step}" if row.failed_step else "Undone by hand"
    return f"**{where}**\n\n```\n{_short(row.failure)}\n```"


def _steps(steps: Sequence[StepTime]) -> str:
    rows = [
        (
            step.step,
            f"{step.began_at:%H:%M:%S}",
            "–" if step.seconds is None else f"{step.seconds:.2f} s",
            step.ended,
        )
        for step in steps
    ]
    return "## Steps\n\n" + _table(("step", "began (UTC)", "took", "ended"), rows) if rows else ""


def _migrations(report: DeployReport) -> str:
    if not report.migrations:
        return ""
    rehearsed = (
        {each.label: each for each in report.rehearsal.migrations} if report.rehearsal else {}
    )
    rows: list[tuple[str, ...]] = []
    for each in report.migrations:
        tried = rehearsed.get(each.label)
        on_clone = f"{tried.seconds:.2f} s / {tried.reverse_seconds:.2f} s" if tried else "–"
        rows.append((each.label, each.state.replace("_", " "), on_clone, each.checksum[:12]))
    header = ("migration", "state", "forward / reverse on the clone", "checksum")
    return "## Migrations\n\n" + _table(header, rows)


def _statements(rehearsal: Rehearsal | None) -> str:
    if rehearsal is None:
        return ""
    rows: list[tuple[str, ...]] = []
    for migration in rehearsal.migrations:
        for each in migration.statements:
            locks = ", ".join(
                f"{effect.relation} {effect.lock.pg_name}"
                + (" rewritten" if effect.rewrites else "")
                + (" scanned" if effect.scans else "")
                for effect in each.effects
                if effect.lock > LockMode.ROW_EXCLUSIVE or effect.rewrites or effect.scans
            )
            rows.append(
                (
                    f"`{_cell(each.statement)}`",
                    f"{each.seconds * 1000:.1f} ms",
                    locks or "–",
                    f"{each.wal_bytes:,}",
                    "–" if each.rows is None else f"{each.rows:,}",
                )
            )
    header = ("statement", "took", "holds up, on existing relations", "WAL bytes", "rows")
    body = _table(header, rows)
    return f"<details><summary>Measured on the clone</summary>\n\n{body}\n\n</details>"


def _schema(difference: SchemaDiff | None) -> str:
    if difference is None or difference.is_empty:
        return ""
    return f"## Schema\n\n```diff\n{difference.render(limit=60)}\n```"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\\|", "|").replace("|", "\\|").replace("\n", " ")


# ---------------------------------------------------------------- the runbook's checklist


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the checklist: ticked, crossed, or not checked, with its evidence."""

    text: str
    ok: bool | None
    evidence: str

    def __str__(self) -> str:
        mark = "x" if self.ok else " "
        return f"- [{mark}] {self.text} – {self.evidence if self.ok is not None else 'not checked'}"


def checklist(report: DeployReport) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """The runbook's lines, before and after, each with the evidence that the ledger holds."""
    return _before(report), _after(report)


def _checklist(report: DeployReport) -> str:
    before, after = checklist(report)
    return "\n".join(
        [
            "## Checklist",
            "",
            "Before applying migration:",
            "",
            *(str(line) for line in before),
            "",
            "After applying migration:",
            "",
            *(str(line) for line in after),
        ]
    )


def _before(report: DeployReport) -> tuple[Line, ...]:
    row, rehearsal, release = report.deploy, report.rehearsal, report.release
    files = ", ".join(each.file for each in row.planned.migrations) or "none"
    rehearsed = rehearsal is not None
    indexes = _added(report, "index")
    keys = _added(report, "constraint", "FOREIGN KEY")
    comments = _commented(report)
    named = release is not None and release.ref is not None
    return (
        Line(text="Migration file created with clear name", ok=True, evidence=files),
        Line(text="SQL syntax is valid", ok=True, evidence="parsed by PostgreSQL's grammar"),
        Line(
            text="Tested on dev database",
            ok=rehearsed,
            evidence=f"restored snapshot {rehearsal.snapshot}" if rehearsal else "no rehearsal",
        ),
        Line(
            text="Verified schema changes are correct",
            ok=rehearsed,
            evidence="applied, undone and applied again with equal schemas"
            if rehearsed
            else "no rehearsal",
        ),
        Line(
            text="Indexes created for performance",
            ok=True if indexes else None,
            evidence=", ".join(indexes),
        ),
        Line(
            text="Rollback plan documented",
            ok=rehearsed,
            evidence=rehearsal.rollback_sentence if rehearsal else "not rehearsed",
        ),
        Line(
            text="Code updated to use new schema",
            ok=True if named else None,
            evidence=f"release {release.ref}" if release else "",
        ),
        Line(text="No breaking changes to existing code", ok=None, evidence=""),
        Line(
            text="Foreign keys set correctly (CASCADE vs RESTRICT)",
            ok=True if keys else None,
            evidence=", ".join(keys),
        ),
        Line(
            text="Comments added for documentation",
            ok=comments,
            evidence="each new table and column has one" if comments else "some have none",
        ),
    )


def _after(report: DeployReport) -> tuple[Line, ...]:
    row, restart, health = report.deploy, report.restart, report.health
    reached = {step.step for step in report.steps if step.ended == "done"}
    stands = row.state == "succeeded"
    verified = stands and "verify_schema" in reached
    applied = [each for each in report.migrations if each.state == "applied"]
    went_in = stands and len(applied) == len(row.planned.migrations)
    why_not = "rolled back" if row.state == "rolled_back" else "not verified"
    equal = "the catalogue equals the rehearsed one" if verified else why_not
    return (
        Line(
            text="Migration applied successfully",
            ok=went_in,
            evidence=f"{len(applied)} of {len(row.planned.migrations)} in the ledger",
        ),
        Line(text="Tables/columns exist as expected", ok=verified, evidence=equal),
        Line(
            text="Indexes created",
            ok=verified,
            evidence=f"{equal}, all valid" if verified else equal,
        ),
        Line(
            text="Foreign keys working",
            ok=verified,
            evidence=f"{equal}, all validated" if verified else equal,
        ),
        Line(
            text="Services restarted",
            ok="restart_service" in reached if restart else None,
            evidence=f"{restart.new}" if restart else "",
        ),
        _health_line("API endpoints work", health, "smoke"),
        _health_line("No errors in logs", health, "log"),
        _health_line("Frontend still functions", health, "frontend"),
    )


def _health_line(text: str, health: HealthVerdict | None, kind: str) -> Line:
    checks = [each for each in health.evidence if each.name.startswith(kind)] if health else []
    if not checks:
        return Line(text=text, ok=None, evidence="")
    # The worst first: bad, then nothing could be told, then good.
    shown = min(checks, key=lambda each: (False, None, True).index(each.ok))
    return Line(text=text, ok=shown.ok, evidence=f"{shown.name}: {shown.detail}")


def _added(report: DeployReport, kind: str, text: str = "") -> list[str]:
    return [
        key.removeprefix(f"{kind} ")
        for key, attributes in report.new_objects.items()
        if key.startswith(f"{kind} ") and text in str(attributes.get("definition", ""))
    ]


def _commented(report: DeployReport) -> bool | None:
    new = [
        attributes
        for key, attributes in report.new_objects.items()
        if key.startswith("table ") or (key.startswith("column ") and _of_table(report, attributes))
    ]
    return all(each.get("comment") for each in new) if new else None


def _of_table(report: DeployReport, column: Attributes) -> bool:
    expected = report.schema_expected
    place = (str(column.get("schema")), str(column.get("table")))
    return expected is not None and place in expected.tables
