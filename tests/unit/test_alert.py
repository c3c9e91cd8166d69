"""The alert: what a person must know first, and no secret in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airlock import record
from airlock.aftermath import Aftermath
from airlock.alert import Alert, compose, routing
from airlock.alert.compose import Facts
from airlock.health import Check, HealthVerdict
from airlock.ledger import REOPENED, Deploy, Event
from airlock.plan import Plan
from airlock.service import Release
from airlock.settings import (
    AlertSettings,
    ClonePolicy,
    EmailSettings,
    GithubSettings,
    ServiceSettings,
    Target,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make(**changed: Any) -> Alert:
    facts: dict[str, Any] = {
        "headline": "ROLLED BACK – service healthy on 010_x (prod)",
        "target": "prod",
        "deploy": 7,
        "state": "rolled_back",
        "versions": "011",
        "failed_step": "check_health",
        "error": "The new release is unhealthy",
        "requester": "Ada",
        "kept_rows": 1234,
        "snapshot": "s1",
        "next_command": "airlock plan prod",
    }
    return Alert(**(facts | changed))


TARGET = Target(
    name="prod",
    root=Path(),
    state_dir=Path(),
    migrations_dir=Path(),
    database_url_env="PROD_URL",
    clone=ClonePolicy(dev_url_env="DEV_URL"),
    alerts=AlertSettings(
        slack_url_env="SLACK_URL",
        pagerduty_key_env="PAGER_KEY",
        webhook_url_env="HOOK_URL",
        email=EmailSettings(host="mail", sender="a@b", to=("c@d",), password_env="MAIL_PASSWORD"),
        github=GithubSettings(repository="a/b", token_env="HUB_TOKEN"),
    ),
)


def test_the_headline_comes_first_and_what_is_unknown_is_left_out():
    full = make(
        at=AT,
        evidence=("first bad sign: HTTP 503", "smoke GET /deals: HTTP 404"),
        reason="halts",
        approval="Approved by Grace: looks right",
        detect_s=2.04,
        restore_s=3.06,
        run_url="http://prefect/runs/1",
    )
    assert full.lines == (
        "ROLLED BACK – service healthy on 010_x (prod)",
        "Target: prod, migrations 011, deploy 7",
        "When: 2026-01-02 03:04:05 UTC",
        "Failing step: check_health",
        "Error: The new release is unhealthy",
        "Evidence: first bad sign: HTTP 503\nsmoke GET /deals: HTTP 404",
        "Started by: Ada – halts",
        "Approval: Approved by Grace: looks right",
        "Time: 2.0 s to detect, 3.1 s to restore",
        "Rows kept: 1,234 in airlock.kept",
        "Snapshot: s1",
        "Run: http://prefect/runs/1",
        "Next: airlock plan prod",
    )
    bare = make(kept_rows=0, snapshot=None, requester="", failed_step="", error="")
    assert [line.partition(":")[0] for line in bare.lines[1:]] == ["Target", "Next"]


def test_an_alert_comes_back_from_the_outbox_as_it_was():
    full = make(at=AT, evidence=("a", "b"), detect_s=1.5, resolves=True)
    assert record.load(Alert, record.dump(full)) == full


def test_an_alert_that_an_older_airlock_queued_can_still_be_read():
    older = json.loads(record.dump(make()))
    for name in (
        *("kind", "cancelled", "incident", "resolves", "ends"),
        *("at", "evidence", "approval", "detect_s", "run_url", "ref"),
    ):
        del older[name]
    assert record.load(Alert, json.dumps(older)) == make()


@pytest.mark.parametrize("here", ["127.0.0.1", "localhost", "[::1]", "127.8.9.1"])
def test_a_link_to_this_machine_is_left_out_for_readers_on_another(here):
    alert = make(run_url=f"http://{here}:4200/runs/1")
    for remote in ("hooks.slack.com", "10.0.0.7", None):
        assert alert.seen_from(remote).run_url is None
    assert alert.seen_from("127.0.0.1") == alert
    reachable = make(run_url="https://prefect.example.org/runs/1")
    assert reachable.seen_from("hooks.slack.com") == reachable


@pytest.mark.parametrize(
    ("changed", "event"),
    [
        ({}, "airlock.deploy.rolled_back"),
        ({"kind": "refresh", "state": "failed"}, "airlock.refresh.failed"),
        ({"kind": "drift", "state": "drift_found"}, "airlock.drift.found"),
        ({"kind": "drift", "state": "drift_gone"}, "airlock.drift.gone"),
        ({"kind": "schedules", "state": "schedules_late"}, "airlock.schedules.late"),
    ],
)
def test_its_event_is_named_by_kind_and_outcome(changed, event):
    assert make(**changed).event == event


# ---------------------------------------------------------------- who hears of it


PEOPLE, PAGER, HOOK, HUB = {"slack", "email"}, {"pagerduty"}, {"webhook"}, {"github"}


@pytest.mark.parametrize(
    ("state", "resolves", "expected"),
    [
        ("succeeded", False, HOOK | HUB),
        ("succeeded", True, HOOK | HUB | PEOPLE | PAGER),
        ("failed", False, HOOK | HUB | PEOPLE | PAGER),
        ("turned_down", False, HOOK | HUB | PEOPLE),
        ("rolled_back", False, HOOK | HUB | PEOPLE | PAGER),
        ("stranded", False, HOOK | HUB | PEOPLE | PAGER),
        ("undone", False, HOOK | HUB | PEOPLE),
        ("undone", True, HOOK | HUB | PEOPLE | PAGER),
        ("withdrawn", True, HOOK | PEOPLE | PAGER),
        ("approval_wanted", False, HOOK | PEOPLE),
        ("drift_found", False, HOOK | PEOPLE | PAGER),
        ("drift_gone", False, HOOK),
        ("drift_gone", True, HOOK | PEOPLE | PAGER),
        ("schedules_late", False, HOOK | PEOPLE | PAGER),
        ("schedules_on_time", True, HOOK | PEOPLE | PAGER),
    ],
)
def test_each_outcome_goes_to_its_channels(state, resolves, expected):
    alert = make(state=state, resolves=resolves, ref="v2")
    assert routing.channels(alert) == expected
    assert routing.channels(replace(alert, ref=None)) == expected - HUB
    assert routing.channels(replace(alert, kind="refresh")) == expected - HUB


@pytest.mark.parametrize(
    ("state", "before", "ends"),
    [
        ("succeeded", {}, ()),
        ("succeeded", {"a": {"failed"}}, ("a",)),
        ("succeeded", {"a": {"stranded"}, "b": {"drift_found"}}, ("a", "b")),
        ("succeeded", {"a": {"rolling_back", "rolled_back"}, "b": {"schedules_late"}}, ("a",)),
        ("undone", {"a": {"stranded"}}, ("a",)),
        ("drift_gone", {"a": {"drift_found"}, "b": {"stranded"}}, ("a",)),
        ("rolled_back", {"a": {"failed"}}, ()),
        ("failed", {"a": {"failed"}}, ()),
        ("turned_down", {"a": {"failed"}, "b": {"stranded"}}, ("b",)),
        ("withdrawn", {"a": {"failed"}, "b": {"drift_found"}}, ("a",)),
        ("withdrawn", {"a": {"failed", "rolled_back"}}, ()),
        ("schedules_on_time", {"a": {"schedules_late"}, "b": {"failed"}}, ("a",)),
    ],
)
def test_a_good_end_ends_the_incidents_that_are_its_to_end(state, before, ends):
    assert routing.ended(state, before) == ends


@pytest.mark.parametrize("state", sorted(routing.FAILURES))
def test_what_a_person_ended_pages_nobody_unless_it_needs_a_person(state):
    is_loud = state in {"stranded", "cut_off"}
    alert = make(state=state, cancelled=True)
    assert ("pagerduty" in routing.channels(alert)) is is_loud
    assert (routing.page(alert) is not None) is is_loud


def test_each_deploy_is_an_incident_of_its_own_and_so_is_one_that_needs_a_person_for_sure():
    named = {
        routing.filed(make(deploy=deploy, state=state)).incident
        for deploy in (7, 8)
        for state in ("failed", "rolling_back", "rolled_back", "stranded", "cut_off")
    }
    assert named == {
        f"airlock-prod-{deploy}{more}"
        for deploy in (7, 8)
        for more in ("", "-stranded", "-cut_off")
    }
    drift = make(deploy=None, kind="drift", state="drift_found")
    assert routing.filed(drift).incident == "airlock-prod-drift"


def test_only_failures_page_and_the_worst_pages_loudest():
    pages = {state: route.page for state, route in routing.ROUTES.items() if route.page}
    assert pages == {
        "stranded": "critical",
        "cut_off": "critical",
        "rolling_back": "error",
        "rolled_back": "error",
        "failed": "warning",
        "drift_found": "warning",
        "schedules_late": "error",
    }
    assert set(pages) == routing.FAILURES


# ---------------------------------------------------------------- what it is made of


def deploy(**changed: Any) -> Deploy:
    facts: dict[str, Any] = dict.fromkeys(Deploy.__slots__)
    plan = Plan(target="prod", head="010_x", migrations=(), schema_before="before")
    facts |= {
        "id": 7,
        "kind": "deploy",
        "target": "prod",
        "requester": "Ada",
        "reason": "halts",
        "request": "{}",
        "state": "rolled_back",
        "plan": record.dump(plan),
        "holder": "host:1",
        "fence": 1,
        "heartbeat_at": AT,
        "silent_s": 0.0,
        "created_at": AT,
        "failed_step": "check_health",
        "failure": "The new release is unhealthy",
    }
    return Deploy(**(facts | changed))


def verdict(said: str, *checks: tuple[str, bool | None, str]) -> HealthVerdict:
    return HealthVerdict(
        verdict=said,  # type: ignore[arg-type]
        summary=said,
        evidence=tuple(Check(name=n, ok=ok, detail=d, at=AT) for n, ok, d in checks),
        seconds=1,
        first_bad=None if said == "healthy" else "HTTP 503",
    )


def facts(**changed: Any) -> Facts:
    return Facts(**({"events": (), "kept_rows": 0, "open_incidents": {}} | changed))


def events(*steps: tuple[float, str, str]) -> tuple[Event, ...]:
    return tuple(
        Event(at=AT + timedelta(seconds=s), step=step, phase=phase, detail="")  # type: ignore[arg-type]
        for s, step, phase in steps
    )


def after(health: HealthVerdict | None = None, service: str = "") -> str:
    return record.dump(Aftermath(health=health, service=service))


BACK, COPY = {"state": "rolled_back"}, {"kind": "refresh", "target": "staging"}
HEADLINES = [
    (
        BACK | {"aftermath": after(verdict("healthy"))},
        "ROLLED BACK – service healthy on 010_x (prod)",
    ),
    (
        BACK | {"aftermath": after(verdict("inconclusive"))},
        "ROLLED BACK – schema back on 010_x, service not certainly healthy (prod)",
    ),
    (BACK, "ROLLED BACK – schema back on 010_x (prod)"),
    (
        BACK | COPY | {"aftermath": after(verdict("healthy"))},
        "ROLLED BACK – service healthy on its own database (staging)",
    ),
    (
        BACK | COPY | {"aftermath": after(verdict("inconclusive"))},
        "ROLLED BACK – its own database is back, service not certainly healthy (staging)",
    ),
    (BACK | COPY, "ROLLED BACK – its own database is back (staging)"),
    (
        {"state": "stranded", "aftermath": after(service="service down")},
        "ROLLBACK FAILED – service down (prod)",
    ),
    (
        COPY | {"state": "stranded", "aftermath": after(service="service answers")},
        "ROLLBACK FAILED – service answers (staging)",
    ),
    ({"state": "stranded"}, "ROLLBACK FAILED – a person is needed now (prod)"),
    ({"state": "failed"}, "REFUSED – prod was not touched, still on 010_x"),
    ({"state": "succeeded", "failure": None}, "DEPLOYED – prod stands at 010_x"),
]


@pytest.mark.parametrize(("changed", "said"), HEADLINES)
def test_ledger_alert_and_report_have_one_headline_that_says_how_the_service_is(changed, said):
    row = deploy(**changed)
    assert row.headline == said
    assert compose.compose(TARGET, row, facts()).headline == said


def test_who_is_asked_reads_the_ledger_s_headline_as_well():
    row = deploy(state="rehearsed", approval="{}")
    assert compose.approval_wanted(TARGET, row, "why").headline == row.headline


FAILED_AFTER_RESTART = events(
    (0, "apply_plan", "intent"),
    (1, "apply_plan", "done"),
    (2, "restart_service", "intent"),
    (4, "restart_service", "done"),
    (7.5, "check_health", "failed"),
    (8, "roll_back", "intent"),
)


@pytest.mark.parametrize(
    ("step", "journal", "finished_s", "expected"),
    [
        ("check_health", FAILED_AFTER_RESTART, 10, (3.5, 2.5)),
        ("check_health", FAILED_AFTER_RESTART, None, (3.5, None)),
        (
            "apply_plan",
            events((0, "apply_plan", "intent"), (2, "apply_plan", "failed")),
            5,
            (2.0, 3.0),
        ),
        (
            "check_health",
            events(
                (1, "apply_plan", "done"),
                (2, "check_health", "failed"),
                (3, "check_health", "done"),
                (4, "check_health", "failed"),
            ),
            5,
            (3.0, 1.0),
        ),
        ("rehearse", events((0, "rehearse", "intent"), (2, "rehearse", "failed")), 5, (None, None)),
        (None, events((0, "apply_plan", "done")), 5, (None, None)),
    ],
    ids=[
        "after the restart",
        "not back yet",
        "while applying",
        "again after a success",
        "before it",
        "by hand",
    ],
)
def test_detection_counts_from_going_live_and_restoring_from_the_failure(
    step, journal, finished_s, expected
):
    finished = AT + timedelta(seconds=finished_s) if finished_s else None
    row = deploy(failed_step=step, finished_at=finished)
    assert compose.times(row, journal) == expected


def test_a_rollback_that_a_person_asked_for_is_no_failure_and_ends_one_if_the_service_is_well():
    journal = events((0, "apply_plan", "failed"), (1, REOPENED, "done"))
    assert compose.compose(TARGET, deploy(), facts()).state == "rolled_back"
    for health, resolves in ((verdict("healthy"), True), (verdict("inconclusive"), False)):
        row = deploy(failed_step="apply_plan", aftermath=after(health))
        found = compose.compose(
            TARGET,
            row,
            facts(events=journal, open_incidents={"airlock-prod-7-stranded": {"stranded"}}),
        )
        assert (found.state, found.resolves) == ("undone", resolves)


def test_it_says_what_the_health_check_saw_who_approved_and_what_can_be_looked_up():
    health = verdict(
        "unhealthy",
        ("bake", True, "fine"),
        ("smoke GET /deals", False, "HTTP 404"),
        ("x", None, ""),
    )
    release = Release(ref="v2", commit="c" * 40, directory=Path())
    row = deploy(
        health=record.dump(health),
        release=record.dump(release),
        run_url="http://prefect/runs/1",
    )
    found = compose.compose(TARGET, row, facts(kept_rows=3, approval="Approved by Grace: seen it"))
    assert found.evidence == ("first bad sign: HTTP 503", "smoke GET /deals: HTTP 404")
    assert found.approval == "Approved by Grace: seen it"
    assert (found.ref, found.run_url, found.kept_rows) == ("c" * 40, "http://prefect/runs/1", 3)


def test_uncommitted_code_is_named_and_is_no_deployment_of_its_commit():
    release = Release(
        ref=None, commit="c" * 40, directory=Path("x"), dirty=True, uncommitted=("M a.py",)
    )
    row = deploy(release=record.dump(release))
    for found in (
        compose.compose(TARGET, row, facts()),
        compose.approval_wanted(TARGET, row, "because"),
    ):
        assert found.ref is None
        assert "Code: the working tree x, at commit cccccccccccc; uncommitted: M a.py\n" in (
            "\n".join(found.lines)
        )


def test_a_long_failure_keeps_its_first_line_and_its_last_ones():
    text = "\n".join(["what happened", *map(str, range(40)), "x" * 900])
    lines = compose.short(text).splitlines()
    assert lines[:3] == ["what happened", "…", "33"]
    assert len(lines) == 2 + compose.ERROR_LINES
    assert lines[-1] == "x" * compose.LINE_CHARACTERS + "…"


# ---------------------------------------------------------------- no secret in it


VARIABLES = (
    *("PROD_URL", "DEV_URL", "SLACK_URL", "PAGER_KEY", "HOOK_URL", "MAIL_PASSWORD", "HUB_TOKEN"),
)


def test_every_variable_that_the_settings_name_is_known_to_be_secret():
    assert set(TARGET.secret_variables) == set(VARIABLES)


secret_text = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=6)


@given(
    value=secret_text.filter(lambda text: text.strip() == text),
    others=st.lists(secret_text, max_size=2),
    around=st.lists(st.text(), min_size=2, max_size=4),
    name=st.sampled_from(VARIABLES),
)
@example(value="ab***cd", others=["secret"], around=["ab", "cd"], name="HUB_TOKEN")
@example(value="***@h/x", others=[], around=["a://u:p@h/x", ""], name="HUB_TOKEN")
def test_no_value_of_a_secret_variable_is_let_through(value, others, around, name):
    with pytest.MonkeyPatch.context() as patch:
        for variable in VARIABLES:
            patch.delenv(variable, raising=False)
        for variable, other in zip(set(VARIABLES) - {name}, others, strict=False):
            patch.setenv(variable, other.replace("\0", "x"))
        patch.setenv(name, value)
        for text in (value.join(around), *(other.join(around) for other in others)):
            found = compose.scrubbed(
                TARGET,
                make(error=text, evidence=(text,), requester=text, reason=text, run_url=text),
            )
            said = [found.error, *found.evidence, found.requester, found.reason, found.run_url]
            assert not [each for each in said if value in (each or "")]


@given(password=secret_text, before=st.text(), after=st.text())
def test_no_password_of_the_database_is_let_through_however_it_is_written(password, before, after):
    url = f"postgresql://owner:{quote(password, safe='')}@db.example/tracker"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROD_URL", url)
        for secret in (password, quote(password, safe=""), url):
            found = compose.scrubbed(TARGET, make(error=f"{before}{secret}{after}"))
            assert secret not in found.error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connecting to postgresql://u:pw@host/db failed", "postgresql://***@host/db"),
        ("GET https://hooks.example/T0/B0/tok3nXYZ", "GET ***"),
        ("404 for /T0/B0/tok3nXYZ", "404 for /***"),
        ("CREATE ROLE x LOGIN PASSWORD 'it''s hunter2'; failed", "PASSWORD '***'; failed"),
        ("ALTER ROLE x password  E'hunter2…: failed", "password  '***'"),
        ("see http://h/x?token=1", "http://h/x?***"),
    ],
)
def test_addresses_keep_nothing_that_opens_a_door(monkeypatch, text, said):
    monkeypatch.setenv("SLACK_URL", "https://hooks.example/T0/B0/tok3nXYZ")
    assert said in compose.scrubbed(TARGET, make(error=text)).error


def test_our_own_words_are_not_masked(tmp_path):
    (tmp_path / "service.env").write_text("APP_ENV=production\nMODE=differs\n", encoding="utf-8")
    service = ServiceSettings(env_file=tmp_path / "service.env")
    target = TARGET.model_copy(update={"name": "production", "service": service})
    headline, error = "DRIFT – production differs", "airlock drift production"
    found = compose.drift_found(target, headline, error, run_url=None)
    assert (found.headline, found.error) == (headline, error)


def test_a_secret_is_removed_before_the_text_is_cut(monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "x" * 40)
    text = "a" * (compose.LINE_CHARACTERS - 20) + "x" * 40
    assert "xxx" not in compose.scrubbed(TARGET, make(error=text)).error
