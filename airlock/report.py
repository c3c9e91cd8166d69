"""What a deploy leaves for people to read, made from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from airlock import lock_budget, record, timeline
from airlock.alert import compose
from airlock.approval import Approval
from airlock.catalogue import Attributes, Catalogue, SchemaDiff, diff
from airlock.client import plot
from airlock.client.felt import Channel, Felt, Tally, shown_ms
from airlock.effects import Effect, LockMode, StatementEffects
from airlock.health import HealthVerdict
from airlock.ledger import CUT_OFF, Deploy, Event, step_times
from airlock.lint import exceptions
from airlock.markdown import code, fenced, plain, table
from airlock.pairing import Which
from airlock.plan import AppliedMigration
from airlock.rehearsal import Rehearsal
from airlock.release import Release
from airlock.request import DeployRequest
from airlock.service import Instance, Restart
from airlock.snapshot import Snapshot
from airlock.timeline import Moment, StepTime, duration

# What an address may have beside letters and digits: nothing that ends a link or a cell.
_IN_ADDRESSES = ":/?#[]@!$&'()*+,;=%~"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """One deploy with all that the ledger knows of it. went: the code that served before."""

    deploy: Deploy
    events: tuple[Event, ...]
    migrations: tuple[AppliedMigration, ...]
    schema_before: Catalogue | None
    schema_expected: Catalogue | None
    kept_rows: int
    felt: Felt | None = None
    went: str = ""

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
        return step_times(self.events)

    @property
    def ends(self) -> Mapping[str, str]:
        """How each step ended the last time."""
        return {step.step: step.ended for step in self.steps}

    @property
    def moments(self) -> tuple[Moment, ...]:
        """When each migration was applied or rolled back."""
        return tuple(
            Moment(at=each.at, label=each.detail)
            for each in self.events
            if each.step == "migration"
        )

    @property
    def snapshot_age_s(self) -> float | None:
        """How old the snapshot was when production was first touched."""
        if self.snapshot is None:
            return None
        began = (step.began_at for step in self.steps if step.step == "apply_plan")
        first = next(began, None)
        return (first - self.snapshot.created_at).total_seconds() if first else None


# ---------------------------------------------------------------- sections


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the report, its body in markdown.

    lead: a sentence above the picture.
    picture: an SVG above the body. alt: what it says, where the next table does not say the same.
    folded: it is long, and shown on demand.
    """

    title: str
    lead: str = ""
    body: str = ""
    picture: str = ""
    alt: str = ""
    folded: bool = False


def sections(report: DeployReport) -> tuple[Section, ...]:
    """What there is to say, the most important first. The first one has the headline."""
    row = report.deploy
    difference = report.schema_diff
    schema = difference.render(limit=60) if difference and not difference.is_empty else ""
    found = (
        _felt(report),
        Section(title="Timeline", picture=timeline.draw(report.steps, report.moments)),
        Section(title="Steps", body=_steps(report.steps), folded=True),
        Section(title="Migrations", body=_migrations(report)),
        Section(
            title="Schema, as rehearsed",
            body=fenced(schema, "diff") if schema else "",
            folded=row.state == "rolled_back",
        ),
        Section(title="Measured on the clone", body=_statements(report.rehearsal), folded=True),
        Section(title="Releases, tried on the clone", body=_tried(report.rehearsal)),
        Section(title="Checked before the swap", body=_copy_checks(row)),
        Section(title="Checklist", body=_checklist(report) if row.kind == "deploy" else ""),
    )
    head = [_next(row), _failure(report), _facts(report)]
    first = Section(title=plain(row.headline), body="\n\n".join(part for part in head if part))
    return (first, *(each for each in found if each.lead or each.body or each.picture))


def markdown(report: DeployReport, *, pictures: bool = False) -> str:
    """The whole report, ending with the runbook's checklist.

    pictures: as data addresses, for a window that shows them.
    """
    head, *rest = sections(report)
    parts = [f"# {head.title}", head.body]
    for each in rest:
        # Without the picture the table of the steps stands for it.
        if each.folded and (pictures or each.title != "Steps"):
            parts.append(_folded(each))
            continue
        title = f"## {each.title}" if each.lead or each.body else ""
        picture = ""
        if each.picture and pictures:
            address = timeline.data_address(each.picture)
            picture = f"![{plain(each.alt or each.title)}]({address})"
        parts += [part for part in (title, each.lead, picture, each.body) if part]
    return "\n\n".join(parts) + "\n"


def _folded(section: Section) -> str:
    return f"<details><summary>{section.title}</summary>\n\n{section.body}\n\n</details>"


def _felt(report: DeployReport) -> Section:
    """What clients felt; empty where no probe ever ran."""
    felt, title = report.felt, "What clients felt"
    if felt is None:
        return Section(title=title)
    lead, body = f"{plain(felt.sentence)}.", ""
    if felt.requests:
        if missing := "; ".join(felt.gaps):
            lead += f" Not measured: {plain(missing)}."
        header = ("asked", "where", "requests", "failed", "longest", "p99", "p99 before")
        asked = [each for each in felt.channels if each.before.requests or each.during.requests]
        body = table(header, [_channel(each) for each in asked])
    picture = plot.draw(felt, report.steps)
    return Section(title=title, lead=lead, body=body, picture=picture, alt=felt.sentence)


def _channel(channel: Channel) -> tuple[str, ...]:
    total = channel.before + channel.during
    longest = channel.during if channel.during.waits else channel.before
    return (
        channel.kind,
        plain(channel.name),
        f"{total.requests:,}",
        f"{total.failed:,}",
        shown_ms(longest.longest_ms),
        _p99(channel.during),
        _p99(channel.before),
    )


def _p99(tally: Tally) -> str:
    return "–" if tally.p99_ms is None else shown_ms(tally.p99_ms)


def _next(row: Deploy) -> str:
    is_dry_run = row.state == "failed" and row.failure is None
    if row.state == "succeeded" or is_dry_run:
        return ""
    return f"**Next:** {plain(row.next_command)}"


def _facts(report: DeployReport) -> str:
    row, rehearsal = report.deploy, report.rehearsal
    facts = [
        (row.kind.title(), _what(row)),
        ("Started by", " – ".join(part for part in (row.requester, row.reason) if part)),
        ("Time", _time(row)),
        ("Taken over", _taken_over(report.events)),
        *_live(report),
        ("Rows kept", f"{report.kept_rows:,} in airlock.kept" if report.kept_rows else ""),
        ("Left out on request", _left_out(row)),
        ("Exceptions from lint", _exceptions(row)),
        ("Snapshot", _snapshot(report)),
        (
            "Snapshot proved",
            f"restored and started in {duration(rehearsal.restore_seconds)}, schema equal to "
            "production's"
            if rehearsal
            else "",
        ),
        ("Rollback, rehearsed", rehearsal.rollback_sentence if rehearsal else ""),
        ("Blocked longest, on the clone", _longest(rehearsal)),
        ("Waited longest, light traffic there", _waited(rehearsal)),
        _approval(row),
    ]
    rows = [(name, plain(text)) for name, text in facts if text]
    if row.run_url and row.run_url.startswith(("http://", "https://")):
        rows.append(("Run", f"[open it in Prefect](<{quote(row.run_url, safe=_IN_ADDRESSES)}>)"))
    return table(("", ""), rows)


def _taken_over(events: Sequence[Event]) -> str:
    """Each runner that was gone, and what became of the deploy."""
    return "; ".join(each.detail for each in events if each.step == CUT_OFF)


def _live(report: DeployReport) -> Iterator[tuple[str, str]]:
    """What was done to the service and how it was, forwards first and then on the way back."""
    row, after = report.deploy, report.deploy.after
    new = "of the new release" if row.kind == "deploy" else "on the copy"
    detect_s, restore_s = compose.times(row, report.events)
    yield "New release" if row.kind == "deploy" else "Release", _release_sentence(report)
    yield "Old release", report.went
    yield f"Restart {new}", _restart_sentence(report.restart)
    yield f"Health {new}", _health_sentence(report.health)
    yield "Clients felt", report.felt.sentence if report.felt else ""
    yield "Evidence", "; ".join(compose.evidence(row))
    yield "Time to detect", duration(detect_s) if detect_s is not None else ""
    yield "Restart in the rollback", _restart_sentence(after.restart)
    yield "Health after the rollback", _health_sentence(after.health)
    yield "Service when the rollback failed", after.service
    yield "Time to restore", duration(restore_s) if restore_s is not None else ""


def _restart_sentence(restart: Restart | None) -> str:
    if restart is None:
        return ""
    return (
        f"{restart.new}: {restart.method}, ready in {duration(restart.ready_s)}, longest gap "
        f"{restart.gap_s * 1000:.0f} ms. {restart.note[:1].upper()}{restart.note[1:]}"
    )


def _health_sentence(health: HealthVerdict | None) -> str:
    return f"{health.verdict}: {health.summary}" if health else ""


def _what(row: Deploy) -> str:
    if row.kind == "refresh":
        done = f": {row.replacement.copied.sentence}" if row.replacement.copied else ""
        return f"{row.id} of {row.target}, a masked copy of {row.replacement.origin}{done}"
    return f"{row.id} of {row.target}, migrations {row.planned.versions}"


def _time(row: Deploy) -> str:
    began = f"{row.created_at:%Y-%m-%d %H:%M:%S} UTC"
    if row.finished_at is None:
        return f"{began}, not finished"
    return f"{began}, {duration((row.finished_at - row.created_at).total_seconds())}"


def _snapshot(report: DeployReport) -> str:
    snapshot, age_s = report.snapshot, report.snapshot_age_s
    if snapshot is None:
        return ""
    age = f", {duration(age_s)} old when production was touched" if age_s is not None else ""
    return (
        f"{snapshot.id}, {snapshot.provider}, {snapshot.size_bytes / 2**20:,.1f} MiB in "
        f"{duration(snapshot.seconds)}{age}"
    )


def _longest(rehearsal: Rehearsal | None) -> str:
    found = lock_budget.excesses(rehearsal, 0) if rehearsal else ()
    return max(found, key=lambda each: each.ms).sentence if found else ""


def _waited(rehearsal: Rehearsal | None) -> str:
    steps = rehearsal.migrations if rehearsal else ()
    waits = [(each.waited_ms, each.label) for each in steps if each.waited_ms is not None]
    return "{:.0f} ms, while {} was applied".format(*max(waits)) if waits else ""


def _copy_checks(row: Deploy) -> str:
    copied = row.replacement.copied if row.kind == "refresh" else None
    return "\n".join(f"- {plain(each)}" for each in copied.checks) if copied else ""


def _left_out(row: Deploy) -> str:
    if row.kind != "deploy":
        return ""
    skipped = record.load(DeployRequest, row.request).skip
    return f"{', '.join(skipped)} – {row.reason}" if skipped else ""


def _exceptions(row: Deploy) -> str:
    """How many rules the migrations let pass, with the reasons that they give."""
    if row.kind != "deploy":
        return ""
    found = [
        f"{each.rule} in {step.file}: {each.reason}"
        for step in row.planned.migrations
        for each in exceptions(step.forward)
    ]
    return f"{len(found)}: {'; '.join(found)}" if found else ""


def _approval(row: Deploy) -> tuple[str, str]:
    if row.approval is None:
        return "Approval", ""
    made = record.load(Approval, row.approval)
    if made.decision == "approved":
        return "Approved by", f"{made.name}{f' – {made.reason}' if made.reason else ''}"
    return "Approval", made.sentence


def _release_sentence(report: DeployReport) -> str:
    if report.release is None:
        return ""
    row, said = report.deploy, [report.release.sentence]
    if row.kind == "deploy" and _named(report) is None:
        said.append("no release was named, so it stays")
    before = record.load(Instance, row.previous) if row.previous else None
    if not report.release.can_go_back and before and before.directory == report.release.directory:
        said.append("its code cannot go back")
    return "; ".join(said)


def _named(report: DeployReport) -> str | None:
    """The release that was asked for by name."""
    row = report.deploy
    return DeployRequest.model_validate_json(row.request).release if row.kind == "deploy" else None


def _failure(report: DeployReport) -> str:
    row = report.deploy
    if row.failure is None:
        return ""
    first, _, rest = compose.short(row.failure).partition("\n")
    said = f"**{_where(report)}:** {plain(first)}"
    return f"{said}\n\n{fenced(rest)}" if rest else said


def _where(report: DeployReport) -> str:
    row = report.deploy
    # What a person asked for is no failure of the step that may have failed before.
    asked_for = {"failed": "Ended by hand", "rolled_back": "Undone by hand"}
    if row.state in asked_for and compose.by_hand(report.events):
        return asked_for[row.state]
    return f"Failed in {plain(row.failed_step)}" if row.failed_step else "Failed between two steps"


def _steps(steps: Sequence[StepTime]) -> str:
    rows = [
        (
            plain(step.step),
            f"{step.began_at:%H:%M:%S}",
            "–" if step.seconds is None else duration(step.seconds),
            step.ended,
        )
        for step in steps
    ]
    return table(("step", "began (UTC)", "took", "ended"), rows) if rows else ""


def _migrations(report: DeployReport) -> str:
    if not report.migrations:
        return ""
    rehearsed = (
        {each.label: each for each in report.rehearsal.migrations} if report.rehearsal else {}
    )
    contract = {each.version for each in report.deploy.planned.of_phase("contract")}
    rows: list[tuple[str, ...]] = []
    for each in report.migrations:
        tried = rehearsed.get(each.label)
        on_clone = f"{tried.seconds:.2f} s / {tried.reverse_seconds:.2f} s" if tried else "–"
        label = f"{each.label} (contract)" if each.version in contract else each.label
        rows.append((plain(label), each.state.replace("_", " "), on_clone, each.checksum[:12]))
    header = ("migration", "state", "forward / reverse on the clone", "checksum")
    return table(header, rows)


def _statements(rehearsal: Rehearsal | None) -> str:
    if rehearsal is None:
        return ""
    rows = [
        (
            code(each.statement),
            f"{each.seconds * 1000:.1f} ms",
            plain(_held(each.effects)) or "–",
            plain(_foreseen(each)),
            f"{each.wal_bytes:,}",
            "–" if each.rows is None else f"{each.rows:,}",
        )
        for migration in rehearsal.migrations
        for each in migration.statements
    ]
    header = (
        "statement",
        "took",
        "holds up, on existing relations",
        "predicted",
        "WAL bytes",
        "rows",
    )
    return table(header, rows) if rows else ""


def _foreseen(statement: StatementEffects) -> str:
    """Whether the prediction said so before."""
    if statement.predicted is None:
        return "–"
    if statement.unknown:
        return f"unknown: {statement.unknown}"
    surprises = _held(statement.surprises)
    return f"not {surprises}" if surprises else "the same"


def _tried(rehearsal: Rehearsal | None) -> str:
    said = rehearsal.releases.sentences if rehearsal else ()
    return "\n".join(f"- {plain(each)}" for each in said)


def _held(effects: Iterable[Effect]) -> str:
    """The locks that keep others waiting, and what is done under them."""
    return ", ".join(
        f"{effect.relation} {effect.lock_name}"
        + (" rewritten" if effect.rewrites else "")
        + (" scanned" if effect.scans else "")
        for effect in effects
        if _matters(effect)
    )


def _matters(effect: Effect) -> bool:
    strong = effect.lock is None or effect.lock > LockMode.ROW_EXCLUSIVE
    return strong or bool(effect.rewrites or effect.scans)


def effects(report: DeployReport) -> list[dict[str, str | float | int | None]]:
    """One row for each statement and what it did on the clone, for a table."""
    if report.rehearsal is None:
        return []
    states = {each.label: each.state.replace("_", " ") for each in report.migrations}
    return [
        {
            "migration": migration.label,
            "state": states.get(migration.label, "rehearsed only"),
            "statement": each.statement,
            "locks": ", ".join(f"{e.relation} {e.lock_name}" for e in each.effects) or "–",
            "rewritten": ", ".join(str(e.relation) for e in each.effects if e.rewrites) or "–",
            "scanned": ", ".join(str(e.relation) for e in each.effects if e.scans) or "–",
            "predicted": _foreseen(each),
            "ms on the clone": round(each.seconds * 1000, 1),
            "WAL bytes": each.wal_bytes,
            "rows": each.rows,
        }
        for migration in report.rehearsal.migrations
        for each in migration.statements
    ]


# ---------------------------------------------------------------- the runbook's checklist


# Three states, where markdown's own lists of tasks know two.
SIGNS = {True: "☑", False: "✗", None: "☐"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the checklist: ticked, crossed, or not checked, with its evidence.

    evidence: of what is not checked, why it is not; empty where nothing is known of it.
    """

    text: str
    ok: bool | None
    evidence: str

    def __str__(self) -> str:
        seen = [self.evidence] if self.evidence else []
        if self.ok is None:
            seen.insert(0, "not checked")
        return f"- {SIGNS[self.ok]} {self.text} – {plain(': '.join(seen))}"


def checklist(report: DeployReport) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """The runbook's lines, before and after, each with the evidence that the ledger holds."""
    return _before(report), _after(report)


def _checklist(report: DeployReport) -> str:
    before, after = checklist(report)
    return "\n".join(
        [
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
    row, rehearsal = report.deploy, report.rehearsal
    files = ", ".join(each.file for each in row.planned.migrations) or "none"
    indexes = _added(report, "index")
    keys = _added(report, "constraint", "FOREIGN KEY")
    comments = {True: "each new table and column has one", False: "some have none", None: ""}
    commented = _commented(report)
    return (
        Line(text="Migration file created with clear name", ok=True, evidence=files),
        Line(text="SQL syntax is valid", ok=True, evidence="parsed by PostgreSQL's grammar"),
        _rehearsed_line(
            report,
            "Tested on dev database",
            f"restored snapshot {rehearsal.snapshot}" if rehearsal else "",
        ),
        _rehearsed_line(
            report,
            "Verified schema changes are correct",
            "applied, undone and applied again with equal schemas",
        ),
        Line(
            text="Indexes created for performance",
            ok=True if indexes else None,
            evidence=", ".join(indexes),
        ),
        _rehearsed_line(
            report,
            "Rollback plan documented",
            rehearsal.rollback_sentence if rehearsal else "",
        ),
        _tried_line(report, "Code updated to use new schema", "new", _came_with_it(report)),
        _tried_line(report, "No breaking changes to existing code", "running"),
        Line(
            text="Foreign keys set correctly (CASCADE vs RESTRICT)",
            ok=True if keys else None,
            evidence=", ".join(keys),
        ),
        Line(text="Comments added for documentation", ok=commented, evidence=comments[commented]),
    )


def _rehearsed_line(report: DeployReport, text: str, evidence: str) -> Line:
    """What the rehearsal proves; crossed where it failed."""
    if report.rehearsal:
        return Line(text=text, ok=True, evidence=evidence)
    failed = report.ends.get("rehearse") == "failed"
    return Line(
        text=text,
        ok=False if failed else None,
        evidence="the rehearsal failed" if failed else "no rehearsal",
    )


def _tried_line(report: DeployReport, text: str, which: Which, otherwise: str = "") -> Line:
    """What a release has shown on the new schema of the clone. One that fails there is refused."""
    releases = report.rehearsal.releases if report.rehearsal else None
    met = releases.met(which) if releases else None
    if met is not None:
        return Line(text=text, ok=True if met.verdict == "works" else None, evidence=met.sentence)
    return Line(text=text, ok=None, evidence=otherwise or (releases.not_tried if releases else ""))


def _came_with_it(report: DeployReport) -> str:
    """That somebody named a release says nothing about its code."""
    named = report.release and _named(report)
    return f"release {named} came with the migrations" if named else ""


def _after(report: DeployReport) -> tuple[Line, ...]:
    planned = len(report.deploy.planned.migrations)
    stands, why_not = _stands(report)
    verified = stands and report.ends.get("verify_schema") == "done"
    equal = "the catalogue equals the rehearsed one" if verified else why_not
    applied = sum(each.state == "applied" for each in report.migrations)
    return (
        Line(
            text="Migration applied successfully",
            ok=stands and applied == planned,
            evidence=f"{applied} of {planned} in the ledger" if stands else why_not,
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
        _restart_line(report),
        _health_line(report, "API endpoints work", "smoke"),
        _health_line(report, "No errors in logs", "log"),
        _health_line(report, "Frontend still functions", "frontend"),
    )


def _stands(report: DeployReport) -> tuple[bool | None, str]:
    """Whether production has what was rehearsed, and why it has not."""
    match report.deploy.state:
        case "succeeded":
            return True, "not verified"
        case "rolled_back":
            return False, "rolled back"
        case "stranded":
            return False, "the rollback failed"
        case "failed":
            return None, "production was not touched"
        case _:
            return None, "the deploy is not finished"


def _restart_line(report: DeployReport) -> Line:
    restart, back = report.restart, report.deploy.after.restart
    ended = {"done": True, "failed": False}.get(report.ends.get("restart_service", ""))
    new = [f"{restart.new}"] if restart else ["the new one did not come up"]
    seen = [*new, f"since the rollback {back.new}"] if back else new
    return Line(
        text="Services restarted",
        ok=ended,
        evidence="; ".join(seen) if ended is not None else "",
    )


def _health_line(report: DeployReport, text: str, kind: str) -> Line:
    health = report.health
    checks = [each for each in health.evidence if each.name.startswith(kind)] if health else []
    if not checks:
        return Line(text=text, ok=None, evidence="")
    # The worst first: bad, then nothing could be told, then good.
    shown = min(checks, key=lambda each: (False, None, True).index(each.ok))
    when = "before the rollback, " if report.deploy.after.health else ""
    return Line(text=text, ok=shown.ok, evidence=f"{when}{shown.name}: {shown.detail}")


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
