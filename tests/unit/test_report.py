"""The report: each line of the runbook's checklist ticked by evidence, or not checked."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airlock import record, report
from airlock.aftermath import Aftermath
from airlock.approval import Approval
from airlock.catalogue import Catalogue
from airlock.effects import Effect, LockMode, StatementEffects
from airlock.health import Check, HealthVerdict
from airlock.ledger import REOPENED, Deploy, Event
from airlock.migration import Migration
from airlock.pairing import Pair, Tried, Verdict, Which
from airlock.plan import AppliedMigration, Plan
from airlock.rehearsal import Rehearsal, RehearsedMigration
from airlock.replacement import MaskedCopy, Replacement
from airlock.report import DeployReport
from airlock.service import Instance, Release, Restart
from airlock.snapshot import Snapshot

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

STEP = Migration(
    version=11,
    name="scores",
    file="011_scores.sql",
    title="Scores",
    purpose="Rank",
    author="A",
    date="2026-01-02",
    checksum="0123456789abcdef",
    forward="",
    reverse="",
)
PLAN = Plan(target="prod", head="010_x", migrations=(STEP,), schema_before="before")
ROW = AppliedMigration(
    version=11,
    name="scores",
    checksum=STEP.checksum,
    state="applied",
    deploy=7,
    position=1,
    applied_at=AT,
    forward="",
    reverse="",
    segments_done=1,
    reverse_segments_done=0,
)
REHEARSAL = Rehearsal(
    snapshot="s1",
    provider="physical",
    server_version="15.1",
    rehearsed_at=AT,
    seconds=2,
    restore_seconds=1,
    schema_before="before",
    schema_after="after",
    checksums=PLAN.checksums,
    migrations=(
        RehearsedMigration(
            label="011_scores",
            seconds=1,
            reverse_seconds=0.5,
            statements=(
                StatementEffects(
                    line=1,
                    statement="UPDATE a SET b = 1 | 2",
                    seconds=0.25,
                    wal_bytes=1234,
                    rows=5000,
                    effects=(
                        Effect(
                            relation="public.deals",
                            lock=LockMode.ACCESS_EXCLUSIVE,
                            held_s=1,
                            rewrites=True,
                            scans=False,
                        ),
                        Effect(
                            relation="public.quiet",
                            lock=LockMode.ROW_EXCLUSIVE,
                            held_s=1,
                            rewrites=False,
                            scans=False,
                        ),
                    ),
                ),
            ),
            schema_before="before",
            schema_after="after",
            drops=(),
        ),
    ),
    verdict="exact",
    losses=(),
    not_compared=(),
    rows_compared=9000,
)


def deploy(**changed: object) -> Deploy:
    facts: dict[str, Any] = dict.fromkeys(Deploy.__slots__)
    facts |= {
        "id": 7,
        "target": "prod",
        "requester": "Ada",
        "reason": "halts",
        "kind": "deploy",
        "request": '{"target": "prod"}',
        "state": "succeeded",
        "plan": record.dump(PLAN),
        "rehearsal": record.dump(REHEARSAL),
        "holder": "host:1",
        "fence": 1,
        "heartbeat_at": AT,
        "created_at": AT,
        "silent_s": 0,
    }
    return Deploy(**(facts | changed))


def events(*steps: tuple[str, str]) -> tuple[Event, ...]:
    return tuple(
        Event(at=AT + timedelta(seconds=n), step=step, phase=phase, detail="")  # type: ignore[arg-type]
        for n, (step, phase) in enumerate(steps)
    )


BEFORE = Catalogue(objects={"table public.old": {"schema": "public", "name": "old"}})


def after(**comments: str) -> Catalogue:
    new = {
        "table public.scores": {"schema": "public", "name": "scores"},
        "column public.scores.id": {"schema": "public", "table": "scores", "name": "id"},
        "index public.scores_i": {"definition": "CREATE INDEX …"},
        "constraint public.scores.fk": {"definition": "FOREIGN KEY (id) REFERENCES old"},
    }
    for kind, comment in comments.items():
        key = next(key for key in new if key.startswith(kind))
        new[key] = {**new[key], "comment": comment}
    return Catalogue(objects={**BEFORE.objects, **new})


def make(row: Deploy, *steps: tuple[str, str], **changed: Any) -> DeployReport:
    facts: dict[str, Any] = {
        "deploy": row,
        "events": events(*steps),
        "migrations": (ROW,),
        "schema_before": BEFORE,
        "schema_expected": after(table="x", column="y"),
        "kept_rows": 0,
    }
    return DeployReport(**(facts | changed))


def ticks(found: DeployReport) -> dict[str, bool | None]:
    before, later = report.checklist(found)
    return {line.text: line.ok for line in (*before, *later)}


VERIFIED = (("verify_schema", "intent"), ("verify_schema", "done"))


def test_a_good_deploy_ticks_what_was_proved_and_leaves_the_rest_unchecked():
    found = ticks(make(deploy(), *VERIFIED))
    assert [text for text, ok in found.items() if ok is None] == [
        "Code updated to use new schema",
        "No breaking changes to existing code",
        "Services restarted",
        "API endpoints work",
        "No errors in logs",
        "Frontend still functions",
    ]
    assert all(ok for ok in found.values() if ok is not None)
    # The runbook's ten before and eight after.
    assert len(found) == 18


def tried(which: Which, verdict: Verdict) -> Tried:
    pair = Pair(which=which, release="v", schema="after", verdict=verdict)
    return Tried(pairs=(pair,), not_tried="a reason")


REHEARSE_FAILED = (("rehearse", "intent"), ("rehearse", "failed"))
RESTART_FAILED = (("restart_service", "intent"), ("restart_service", "failed"))


@pytest.mark.parametrize(
    ("changed", "steps", "line", "said"),
    [
        ({}, (), "Tested on dev database", "☑ {} – restored snapshot s1"),
        ({"rehearsal": None}, (), "Tested on dev database", "☐ {} – not checked: no rehearsal"),
        (
            {"rehearsal": None},
            REHEARSE_FAILED,
            "Rollback plan documented",
            "✗ {} – the rehearsal failed",
        ),
        ({}, VERIFIED, "Migration applied successfully", "☑ {} – 1 of 1 in the ledger"),
        (
            {"state": "rolled_back"},
            VERIFIED,
            "Migration applied successfully",
            "✗ {} – rolled back",
        ),
        (
            {"state": "failed"},
            (),
            "Migration applied successfully",
            "☐ {} – not checked: production was not touched",
        ),
        (
            {"state": "rolled_back"},
            RESTART_FAILED,
            "Services restarted",
            "✗ {} – the new one did not come up",
        ),
        (
            {
                "release": record.dump(Release(ref="v2", commit="c", directory=Path("x"))),
                "request": '{"target": "prod", "release": "v2"}',
            },
            VERIFIED,
            "Code updated to use new schema",
            "☐ {} – not checked: release v2 came with the migrations",
        ),
        (
            {"release": record.dump(Release(ref="v1", commit="c", directory=Path("x")))},
            VERIFIED,
            "Code updated to use new schema",
            "☐ {} – not checked",
        ),
        (
            {"release": record.dump(Release(ref=None, commit=None, directory=Path("x")))},
            VERIFIED,
            "Code updated to use new schema",
            "☐ {} – not checked",
        ),
        (
            {"rehearsal": record.dump(replace(REHEARSAL, releases=tried("new", "works")))},
            VERIFIED,
            "Code updated to use new schema",
            "☑ {} – the new release v on the new schema: works",
        ),
        (
            {"rehearsal": record.dump(replace(REHEARSAL, releases=tried("running", "not proved")))},
            VERIFIED,
            "No breaking changes to existing code",
            "☐ {} – not checked: the running release v on the new schema: not proved",
        ),
        (
            {"rehearsal": record.dump(replace(REHEARSAL, releases=Tried(not_tried="a reason")))},
            VERIFIED,
            "No breaking changes to existing code",
            "☐ {} – not checked: a reason",
        ),
    ],
)
def test_a_line_is_ticked_crossed_or_not_checked_by_its_evidence_alone(changed, steps, line, said):
    found = report.markdown(make(deploy(**changed), *steps))
    assert f"\n- {said.format(line)}\n" in found


def test_a_rehearsal_from_before_releases_were_tried_can_be_read():
    stored = json.loads(record.dump(REHEARSAL))
    del stored["releases"]
    assert ticks(make(deploy(rehearsal=json.dumps(stored))))["Tested on dev database"]


def restart(pid: int, release: str) -> Restart:
    instance = Instance(
        pid=pid,
        create_time=0,
        boot_id="b",
        token=None,
        release=release,
        started_at=AT,
        directory=Path("x"),
    )
    return Restart(
        old=None, new=instance, method="inherited socket", gap_s=0.004, ready_s=1.5, note="drained"
    )


def verdict(said: str, summary: str, *checks: Check) -> HealthVerdict:
    return HealthVerdict(
        verdict=said,  # type: ignore[arg-type]
        summary=summary,
        evidence=checks,
        seconds=1,
        first_bad=None if said == "healthy" else "HTTP 503",
    )


WENT_BACK = (
    ("restart_service", "intent"),
    ("restart_service", "done"),
    ("check_health", "intent"),
    ("check_health", "failed"),
)


def rolled_back(**changed: Any) -> Deploy:
    bad = Check(name="smoke GET /deals", ok=False, detail="HTTP 404", at=AT)
    back = Aftermath(restart=restart(2, "v1"), health=verdict("healthy", "5 good answers"))
    facts: dict[str, Any] = {
        "state": "rolled_back",
        "failed_step": "check_health",
        "failure": "The new release is unhealthy",
        "finished_at": AT + timedelta(seconds=7.5),
        "restart": record.dump(restart(1, "v2")),
        "health": record.dump(verdict("unhealthy", "it answered badly", bad)),
        "aftermath": record.dump(back),
    }
    return deploy(**(facts | changed))


def test_the_report_says_whose_runner_was_gone_and_which_way_it_went_on():
    said = "vm:7:a-1 was last heard of 41 s ago, applied; it was applied, so it is finished"
    taken_over = Event(at=AT, step="cut_off", phase="done", detail=said)
    found = make(rolled_back())
    text = report.markdown(replace(found, events=(*found.events, taken_over)))
    assert f"| Taken over | {said} |" in text.replace("\\", "")


def test_after_a_rollback_the_report_says_how_it_was_before_and_how_it_is_now():
    text = report.markdown(make(rolled_back(), *WENT_BACK))
    assert text.startswith("# ROLLED BACK – service healthy on 010_x (prod)\n")
    took = "inherited socket, ready in 1.50 s, longest gap 4 ms. Drained"
    assert [line for line in text.splitlines() if line.startswith(LIVE)] == [
        f"| Restart of the new release | pid 1, release v2: {took} |",
        "| Health of the new release | unhealthy: it answered badly |",
        "| Evidence | first bad sign: HTTP 503; smoke GET /deals: HTTP 404 |",
        "| Time to detect | 2.00 s |",
        f"| Restart in the rollback | pid 2, release v1: {took} |",
        "| Health after the rollback | healthy: 5 good answers |",
        "| Time to restore | 4.50 s |",
    ]
    served = "pid 1, release v2; since the rollback pid 2, release v1"
    assert f"- ☑ Services restarted – {served}\n" in text
    asked = "before the rollback, smoke GET /deals: HTTP 404"
    assert f"- ✗ API endpoints work – {asked}\n" in text
    assert "<summary>Schema, as rehearsed</summary>" in text


LIVE = ("| Restart", "| Health", "| Evidence", "| Time to", "| Service when")


def test_where_the_rollback_failed_the_report_says_how_the_service_answered_then():
    row = rolled_back(state="stranded", aftermath=record.dump(Aftermath(service="service down")))
    text = report.markdown(make(row, *WENT_BACK))
    assert text.startswith("# ROLLBACK FAILED – service down (prod)\n")
    assert told(text, "Service when the rollback failed") == "service down"


def test_the_restart_of_the_rollback_is_the_last_one():
    assert rolled_back().last_restart == restart(2, "v1")
    assert rolled_back(aftermath=None).last_restart == restart(1, "v2")
    assert deploy().last_restart is None


def test_what_was_not_verified_is_not_ticked():
    found = ticks(make(deploy(state="rolled_back"), ("verify_schema", "intent")))
    assert found["Tables/columns exist as expected"] is False


@pytest.mark.parametrize(("before", "cannot"), [("x", True), ("y", False)])
def test_code_cannot_go_back_where_the_same_working_tree_served_before(before, cannot):
    tree = Release(ref=None, commit="c", directory=Path("x"), changed=("a.py",))
    instance = Instance(
        pid=1,
        create_time=1,
        boot_id="b",
        token=None,
        release="v1",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        directory=Path(before),
    )
    row = deploy(release=record.dump(tree), previous=record.dump(instance))
    found = report.markdown(make(row))
    assert "started: a.py; no release was named, so it stays" in found
    assert ("its code cannot go back" in found) is cannot


@pytest.mark.parametrize(
    ("comments", "ok"),
    [({"table": "x", "column": "y"}, True), ({"table": "x"}, False), ({}, False)],
)
def test_comments_are_ticked_when_each_new_table_and_column_has_one(comments, ok):
    found = make(deploy(), *VERIFIED, schema_expected=after(**comments))
    assert ticks(found)["Comments added for documentation"] is ok


@pytest.mark.parametrize(
    ("seen", "ok"),
    [([True], True), ([True, False], False), ([None], None), ([True, None], None), ([], None)],
)
def test_an_endpoint_that_was_not_asked_is_not_checked(seen, ok):
    verdict = HealthVerdict(
        verdict="healthy",
        summary="fine",
        evidence=tuple(Check(name="smoke GET /a", ok=each, detail="200", at=AT) for each in seen),
        seconds=1,
        first_bad=None,
    )
    found = ticks(make(deploy(health=record.dump(verdict)), *VERIFIED))
    assert found["API endpoints work"] is ok


def test_the_markdown_says_what_happened_and_ends_with_the_checklist():
    text = report.markdown(make(deploy(), *VERIFIED, kept_rows=1234))
    assert text.startswith("# DEPLOYED – prod stands at 011\n")
    assert "| Started by | Ada – halts |" in text
    assert "exact: schema and 9,000 rows came back as they were" in text
    assert "| verify_schema | 03:04:05 | 1.00 s | done |" in text
    assert "| 011_scores | applied | 1.00 s / 0.50 s | 0123456789ab |" in text
    assert "public.deals AccessExclusiveLock rewritten" in text
    assert "public.quiet" not in text
    assert "`UPDATE a SET b = 1 \\| 2` | 250.0 ms" in text
    assert "1,234 in airlock.kept" in text
    assert "+ table public.scores" in text
    last = text.rstrip().splitlines()[-1]
    assert last == "- ☐ Frontend still functions – not checked"


def test_a_failure_is_shown_by_its_step_what_happened_and_its_last_lines():
    failure = "\n".join(f"line {n}" for n in range(20))
    row = deploy(state="failed", failed_step="rehearse", failure=failure, rehearsal=None)
    text = report.markdown(make(row, migrations=()))
    assert "\n\n**Failed in rehearse:** line 0\n\n```\n…\n" in text
    assert "line 19" in text
    assert "line 3\n" not in text


def test_each_intent_is_paired_with_the_result_that_follows_it():
    found = make(
        deploy(),
        ("apply_plan", "intent"),
        ("migration", "done"),
        ("apply_plan", "failed"),
        ("apply_plan", "intent"),
        ("apply_plan", "done"),
        ("check_health", "intent"),
    ).steps
    assert [(each.step, each.seconds, each.ended) for each in found] == [
        ("apply_plan", 2, "failed"),
        ("apply_plan", 1, "done"),
        ("check_health", None, "unfinished"),
    ]


@pytest.mark.parametrize(
    ("changed", "said", "command"),
    [
        ({"state": "succeeded"}, "DEPLOYED – prod stands at 011", "airlock status prod"),
        (
            {"state": "succeeded", "plan": record.dump(replace(PLAN, migrations=()))},
            "DEPLOYED – prod stands at 010_x",
            "airlock status prod",
        ),
        (
            {"state": "failed", "failure": "x"},
            "REFUSED – prod was not touched, still on 010_x",
            "mend the cause, airlock plan prod, airlock deploy prod",
        ),
        (
            {"state": "failed"},
            "REHEARSED – prod was not touched: dry run of 011",
            "mend the cause, airlock plan prod, airlock deploy prod",
        ),
        (
            {"state": "rolled_back"},
            "ROLLED BACK – schema back on 010_x (prod)",
            "mend the cause, airlock plan prod, airlock deploy prod",
        ),
        (
            {"state": "stranded"},
            "ROLLBACK FAILED – a person is needed now (prod)",
            "airlock status prod, mend what it names, airlock rollback prod",
        ),
        (
            {"state": "rolling_back", "failed_step": "check_health"},
            "ROLLING BACK – check_health failed (prod)",
            "airlock status prod",
        ),
        ({"state": "applying"}, "IN PROGRESS – prod, 011: applying", "airlock status prod"),
        (
            {"state": "rehearsed", "approval": "{}"},
            "APPROVAL WANTED – prod 011 waits for a person",
            "airlock report prod, then airlock approve prod, or airlock reject prod",
        ),
        (
            {"state": "rehearsed", "approval": "{}", "silent_s": 300},
            "CUT OFF – rehearsed, and its runner is gone (prod)",
            "airlock recover prod",
        ),
    ],
)
def test_the_headline_is_the_outcome_and_the_next_command_what_to_do(changed, said, command):
    row = deploy(**changed)
    assert (row.headline, row.next_command) == (said, command)


def told(text: str, name: str) -> str:
    """What the table of facts says about something; empty if it is not there."""
    lines = (line for line in text.splitlines() if line.startswith(f"| {name} | "))
    return next(lines, "").removeprefix(f"| {name} | ").removesuffix(" |")


def asked(**decided: Any) -> str:
    return record.dump(
        Approval(
            required_because="prod always asks",
            asked_at=AT,
            schema_before="before",
            checksums=PLAN.checksums,
            **decided,
        )
    )


SNAPSHOT = Snapshot(
    id="s1",
    provider="physical",
    provider_reason="",
    path=Path("s1"),
    target="prod",
    database="d",
    created_at=AT - timedelta(seconds=90),
    seconds=2.5,
    size_bytes=3 * 2**20,
    sha256="",
    wal_lsn="",
    system_identifier="",
    server_version="",
    tool_version="",
    migration_head=None,
)


@pytest.mark.parametrize(
    ("changed", "name", "said"),
    [
        ({"run_url": "http://ui/runs/1"}, "Run", "[open it in Prefect](<http://ui/runs/1>)"),
        ({"run_url": "javascript:alert(1)"}, "Run", ""),
        ({"run_url": "http://ui/> |"}, "Run", "[open it in Prefect](<http://ui/%3E%20%7C>)"),
        (
            {"request": '{"target": "prod", "skip": ["smoke", "bake"]}'},
            "Left out on request",
            "smoke, bake – halts",
        ),
        (
            {
                "plan": record.dump(
                    replace(
                        PLAN,
                        migrations=(
                            replace(
                                STEP,
                                forward="-- airlock: allow truncate because a | b\nTRUNCATE a;",
                            ),
                        ),
                    )
                )
            },
            "Exceptions from lint",
            "1: truncate in 011_scores.sql: a \\| b",
        ),
        (
            {"approval": asked(decision="approved", name="Eve", reason="read it")},
            "Approved by",
            "Eve – read it",
        ),
        (
            {"approval": asked(decision="rejected", name="Eve", reason="too late")},
            "Approval",
            "Rejected by Eve: too late",
        ),
        ({"approval": asked(decision="not needed")}, "Approval", "not needed: prod always asks"),
        (
            {"snapshot": record.dump(SNAPSHOT)},
            "Snapshot",
            "s1, physical, 3.0 MiB in 2.50 s, 1 min 30 s old when production was touched",
        ),
        (
            {"finished_at": AT + timedelta(seconds=75)},
            "Time",
            "2026-01-02 03:04:05 UTC, 1 min 15 s",
        ),
        ({}, "Time", "2026-01-02 03:04:05 UTC, not finished"),
        (
            {"reason": "so | <b>\n[x](http://e)"},
            "Started by",
            "Ada – so \\| \\<b> \\[x\\](http://e)",
        ),
        (
            {"reason": "__init__.py in C:\\|x"},
            "Started by",
            "Ada – \\_\\_init\\_\\_.py in C:\\\\\\|x",
        ),
    ],
)
def test_a_fact_is_told_where_the_ledger_has_it(changed, name, said):
    text = report.markdown(make(deploy(**changed), ("apply_plan", "intent")))
    assert told(text, name) == said


@pytest.mark.parametrize(
    ("changed", "says_next"),
    [
        ({"state": "succeeded"}, False),
        ({"state": "failed"}, False),
        ({"state": "failed", "failure": "x"}, True),
        ({"state": "stranded", "failure": "x"}, True),
        ({"state": "applying"}, True),
    ],
)
def test_what_to_do_next_comes_before_everything_else_if_there_is_anything_to_do(
    changed, says_next
):
    lines = report.markdown(make(deploy(**changed))).splitlines()
    assert lines[2].startswith("**Next:** ") is says_next


def test_a_refresh_has_its_copy_in_place_of_the_runbook_s_checklist():
    copied = MaskedCopy(tables=3, rows=1200, masked_columns=4, checks=("no sentinel",), seconds=2)
    names = Replacement.of(7, source="prod", database="staging", oid=1)
    row = deploy(
        kind="refresh",
        target="staging",
        request='{"target": "staging"}',
        plan=record.dump(replace(PLAN, migrations=())),
        rehearsal=None,
        refresh=record.dump(replace(names, copied=copied)),
    )
    found = make(row, migrations=(), schema_expected=None)
    text = report.markdown(found)
    assert told(text, "Refresh").startswith("7 of staging, a masked copy of prod: 3 tables, 1,200")
    assert "## Checked before the swap\n\n- no sentinel\n" in text
    assert [each.title for each in report.sections(found)][1:] == ["Checked before the swap"]
    assert report.effects(found) == []


def test_the_timeline_is_a_picture_only_where_pictures_are_shown():
    found = make(deploy(), *VERIFIED)
    shown = report.markdown(found, pictures=True)
    head, _, rest = shown.partition("![Timeline](data:image/svg+xml;base64,")
    assert head.startswith("# DEPLOYED")
    svg = base64.b64decode(rest.partition(")")[0]).decode()
    assert "verify_schema" in svg
    assert "<details><summary>Steps</summary>" in shown
    assert "data:" not in report.markdown(found)
    assert "## Steps\n\n| step |" in report.markdown(found)


def test_the_table_of_effects_has_one_row_for_each_statement():
    (row,) = report.effects(make(deploy()))
    assert row == {
        "migration": "011_scores",
        "state": "applied",
        "statement": "UPDATE a SET b = 1 | 2",
        "locks": "public.deals AccessExclusiveLock, public.quiet RowExclusiveLock",
        "rewritten": "public.deals",
        "scanned": "–",
        "predicted": "–",
        "ms on the clone": 250.0,
        "WAL bytes": 1234,
        "rows": 5000,
    }
    (row,) = report.effects(make(deploy(), migrations=()))
    assert row["state"] == "rehearsed only"


@pytest.mark.parametrize(
    ("state", "step", "journal", "said"),
    [
        ("failed", None, (), "Failed between two steps"),
        ("failed", None, ((REOPENED, "done"),), "Ended by hand"),
        ("rolled_back", "apply_plan", (), "Failed in apply_plan"),
        ("rolled_back", None, ((REOPENED, "done"),), "Undone by hand"),
        ("rolled_back", "apply_plan", ((REOPENED, "done"),), "Undone by hand"),
        ("stranded", "roll_back", ((REOPENED, "done"),), "Failed in roll_back"),
    ],
)
def test_only_what_a_person_ended_is_said_to_be_by_hand(state, step, journal, said):
    row = deploy(state=state, failed_step=step, failure="x")
    assert f"**{said}:** x" in report.markdown(make(row, *journal)).splitlines()


def test_a_failure_with_backticks_stays_in_its_block():
    row = deploy(state="failed", failed_step="rehearse", failure="<a>\n```\n# b")
    text = report.markdown(make(row))
    assert "**Failed in rehearse:** \\<a>\n\n````\n```\n# b\n````" in text


def test_a_statement_with_backticks_stays_code():
    (tried,) = REHEARSAL.migrations
    odd = replace(tried.statements[0], statement="COMMENT ON a IS '`<b>``'")
    rehearsed = replace(REHEARSAL, migrations=(replace(tried, statements=(odd,)),))
    text = report.markdown(make(deploy(rehearsal=record.dump(rehearsed))))
    assert "| ```COMMENT ON a IS '`<b>``'``` |" in text
