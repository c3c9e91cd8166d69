"""When a person is asked, why, and what stands in the ledger and the report about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airlock import approval, record
from airlock.approval import Approval
from airlock.catalogue import Catalogue, diff
from airlock.effects import Effect, LockMode, StatementEffects
from airlock.errors import Refused
from airlock.pairing import Pair, Tried
from airlock.plan import Plan
from airlock.rehearsal import Rehearsal, RehearsedMigration
from airlock.request import DeployRequest
from airlock.service import Release
from airlock.settings import ApprovalSettings, Target
from tests.unit.test_markdown import shown
from tests.unit.test_report import SNAPSHOT, STEP, deploy

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def target(policy="lossy-or-blocking", **settings) -> Target:
    return Target(
        name="prod",
        root=Path(),
        state_dir=Path(),
        migrations_dir=Path(),
        database_url_env="PROD_URL",
        approval=ApprovalSettings(policy=policy),
        **settings,
    )


def effect(lock=LockMode.SHARE, held_s=0.001, *, rewrites=False, scans=False) -> Effect:
    return Effect(relation="public.deals", lock=lock, held_s=held_s, rewrites=rewrites, scans=scans)


def rehearsal(*effects: Effect, losses=(), not_compared=()) -> Rehearsal:
    statement = StatementEffects(
        line=1, statement="ALTER …", seconds=0.1, wal_bytes=0, rows=None, effects=effects
    )
    migration = RehearsedMigration(
        label="001_a",
        seconds=0.1,
        reverse_seconds=0.1,
        statements=(statement,),
        schema_before="a",
        schema_after="b",
        drops=(),
    )
    return Rehearsal(
        snapshot="s",
        provider="logical",
        server_version="18.0",
        rehearsed_at=AT,
        seconds=1,
        restore_seconds=1,
        schema_before="a",
        schema_after="b",
        checksums=("c",),
        migrations=(migration,),
        verdict="lossy" if losses else "schema only" if not_compared else "exact",
        losses=losses,
        not_compared=not_compared,
        rows_compared=1,
    )


def changed(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]):
    return diff(Catalogue(objects=before), Catalogue(objects=after))


SAME = changed({}, {})
HARMLESS = rehearsal(effect(LockMode.SHARE_UPDATE_EXCLUSIVE, 9, scans=True))
DEPLOY = DeployRequest(target="prod")
TABLE, COLUMN = "table public.deals", "column public.deals.name"

# What was rehearsed, how the schema changes, and a part of the reason; None: nobody is asked.
CASES = {
    "a weak lock, however long": (HARMLESS, SAME, None),
    "a short strong lock": (rehearsal(effect(LockMode.ACCESS_EXCLUSIVE, 0.2)), SAME, None),
    "a strong lock beyond the budget": (
        rehearsal(effect(LockMode.ACCESS_EXCLUSIVE, 0.201)),
        SAME,
        "ALTER …: public.deals AccessExclusiveLock for 201 ms",
    ),
    "a scan that blocks writes": (rehearsal(effect(scans=True)), SAME, "1 ms, scanned"),
    "a rewrite": (
        rehearsal(effect(LockMode.ACCESS_EXCLUSIVE, rewrites=True)),
        SAME,
        "rewritten",
    ),
    "a scan that blocks nobody": (
        rehearsal(effect(LockMode.ROW_EXCLUSIVE, 9, scans=True)),
        SAME,
        None,
    ),
    "a way back that loses rows": (
        rehearsal(losses=('"deals" (name), 3 rows fewer',)),
        SAME,
        "lossy: not restored were",
    ),
    "a way back that nobody compared": (rehearsal(not_compared=("big",)), SAME, "schema only"),
    "something new": (rehearsal(), changed({}, {TABLE: {}, COLUMN: {}}), None),
    "an index that goes": (rehearsal(), changed({"index public.i": {}}, {}), None),
    "a table that goes": (
        rehearsal(),
        changed({TABLE: {}, COLUMN: {}}, {}),
        f"may use: {TABLE}, {COLUMN}",
    ),
    "a view that goes": (rehearsal(), changed({"view public.v": {}}, {}), "view public.v"),
    "a column of another type": (
        rehearsal(),
        changed({COLUMN: {"type": "text"}}, {COLUMN: {"type": "integer"}}),
        f"{COLUMN} (type)",
    ),
    "a column of another default": (
        rehearsal(),
        changed({COLUMN: {"default": "1"}}, {COLUMN: {"default": "2"}}),
        None,
    ),
}


@pytest.mark.parametrize(("rehearsed", "difference", "because"), CASES.values(), ids=CASES)
def test_a_person_is_asked_about_what_is_lost_or_keeps_others_waiting(
    rehearsed, difference, because
):
    found = approval.needed(target(), DEPLOY, rehearsed, difference)
    assert (found is None) is (because is None)
    assert (because or "") in (found or "")


@pytest.mark.parametrize(("rehearsed", "difference", "because"), CASES.values(), ids=CASES)
def test_a_target_that_never_asks_does_not_and_one_that_always_asks_says_what_to_look_at(
    rehearsed, difference, because
):
    assert approval.needed(target("none"), DEPLOY, rehearsed, difference) is None
    found = approval.needed(target("always"), DEPLOY, rehearsed, difference)
    assert (found or "").startswith("prod always asks")
    assert (because or "") in (found or "")


@pytest.mark.parametrize("policy", ["none", "lossy-or-blocking", "always"])
def test_a_form_can_only_make_it_stricter(policy):
    asked = DeployRequest(target="prod", ask=True)
    assert approval.needed(target(policy), asked, HARMLESS, SAME)
    found = approval.needed(
        target("always"), DeployRequest(target="prod", ask=False), HARMLESS, SAME
    )
    assert found


def test_the_lock_budget_of_the_request_is_the_measure():
    rehearsed = rehearsal(effect(LockMode.ACCESS_EXCLUSIVE, 0.5))
    patient = DeployRequest(target="prod", lock_timeout_ms=500)
    assert approval.needed(target(), DEPLOY, rehearsed, SAME)
    assert approval.needed(target(), patient, rehearsed, SAME) is None


def test_many_reasons_are_counted_and_not_all_named():
    found = approval.needed(target(), DEPLOY, rehearsal(*[effect(scans=True)] * 5), SAME)
    assert (found or "").endswith(", and 2 more")


APPROVED = Approval(
    required_because="a reason",
    asked_at=AT,
    schema_before="a",
    checksums=("c",),
    decision="approved",
    name="Grace",
    reason="seen",
    decided_at=AT + timedelta(hours=2),
)


@pytest.mark.parametrize(
    ("changes", "sentence", "is_refusal"),
    [
        ({}, "Approved by Grace: seen", False),
        ({"reason": ""}, "Approved by Grace", False),
        ({"decision": "rejected"}, "Rejected by Grace: seen", True),
        (
            {"decision": "expired", "name": "", "reason": ""},
            "Nobody decided within 2.0 h. Asked because a reason.",
            True,
        ),
        (
            {"decision": "not needed", "required_because": "policy none"},
            "not needed: policy none",
            False,
        ),
        ({"decision": None}, "waits since 2026-01-02 03:04 UTC, because a reason.", False),
    ],
)
def test_each_decision_is_one_sentence(changes, sentence, is_refusal):
    made = replace(APPROVED, **changes)
    assert (made.sentence, made.is_refusal) == (sentence, is_refusal)
    assert record.load(Approval, record.dump(made)) == made


def test_an_approval_is_about_one_plan_on_one_schema():
    assert APPROVED.is_about(rehearsal())
    assert not replace(APPROVED, schema_before="z").is_about(rehearsal())
    assert not replace(APPROVED, checksums=("d",)).is_about(rehearsal())


@pytest.mark.parametrize(
    ("require", "reason", "skip", "said"),
    [
        (False, "", (), None),
        (True, "why", (), None),
        (True, " ", (), "requires a reason"),
        (False, "", ("smoke", "bake"), "To leave out smoke, bake"),
        (False, "why", ("smoke",), None),
    ],
)
def test_a_reason_is_required_where_the_target_says_so_and_where_checks_are_left_out(
    require, reason, skip, said
):
    where = target(require_reason=require)
    if said is None:
        approval.check_reason(where, reason, skip=skip)
    else:
        with pytest.raises(Refused, match=said):
            approval.check_reason(where, reason, skip=skip)


ATTACK = "<b>*~`` [x](y) |\n````\n# __z__"


def test_whatever_words_are_in_the_question_they_are_no_markup_of_it():
    step = replace(STEP, name=ATTACK, purpose=ATTACK)
    plan = Plan(target="prod", head=None, migrations=(step,), schema_before="a")
    blocking = rehearsal(replace(effect(scans=True), relation=ATTACK), losses=(ATTACK,))
    pair = Pair(which="new", release="v2", schema="before", failure=ATTACK)
    tree = Release(
        ref=None, commit="c", directory=Path("x"), dirty=True, uncommitted=("?? a", ATTACK)
    )
    text = approval.question(
        deploy(
            target=ATTACK,
            requester=ATTACK,
            reason=ATTACK,
            plan=record.dump(plan),
            release=record.dump(tree),
        ),
        replace(APPROVED, required_because=ATTACK, meanwhile=f"+ table {ATTACK}"),
        replace(blocking, releases=Tried(pairs=(pair,))),
        replace(SNAPSHOT, id=ATTACK),
        changed({}, {f"table {ATTACK}": {}}),
    )
    blocks, inside = shown(text)
    item = ["list_item_open", "paragraph_open"]
    said = ["paragraph_open"]
    assert blocks == ["heading_open", *said * 2, "bullet_list_open", *item * 7, *said * 2]
    kinds = [kind for kind, _ in inside if kind not in ("text", "softbreak")]
    assert kinds == ["strong_open", "strong_close"]
    words = "".join(each for _, each in inside)
    assert words.count(" ".join(ATTACK.split())) == 11
    assert "Code: the working tree x, at commit c; uncommitted: ?? a, " in words
