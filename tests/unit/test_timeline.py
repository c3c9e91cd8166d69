"""The picture of a deploy's steps: its geometry, its words, and that it is always XML."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock import timeline
from airlock.ledger import Event, step_times
from airlock.timeline import Moment, StepTime

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
HOURS = 2 * 3600 + 13 * 60


def step(name: str, began: float, took: float | None, ended: str = "done") -> StepTime:
    at = AT + timedelta(seconds=began)
    return StepTime(step=name, began_at=at, seconds=took, ended=ended)


GOOD = [step("take_snapshot", 0, 1), step("rehearse", 1, 4), step("apply_plan", 5, 0.5)]
BACK = [*GOOD, step("check_health", 5.5, 1, "failed"), step("roll_back", 6.5, 2)]
WAITED = [*GOOD[:2], step("approve", 5, HOURS), step("apply_plan", 5 + HOURS, 0.5)]
NEXT_DAY = [*GOOD[:2], step("apply_plan", 5, None), step("roll_back", 90_000, 2)]
ASKED = [*GOOD[:2], step("approve", 5, None)]


def test_an_attempt_that_was_killed_has_a_bar_of_its_own():
    phases = ((0, "intent"), (60, "intent"), (61, "done"), (62, "intent"))
    journal = [
        Event(at=AT + timedelta(seconds=s), step="apply_plan", phase=phase, detail="")  # type: ignore[arg-type]
        for s, phase in phases
    ]
    assert step_times(journal) == (
        step("apply_plan", 0, None, "unfinished"),
        step("apply_plan", 60, 1),
        step("apply_plan", 62, None, "unfinished"),
    )


def parsed(drawn: str) -> Element:
    return ElementTree.fromstring(drawn)  # noqa: S314 – ours


def of(drawn: str, tag: str, kind: str = "") -> list[Element]:
    found = parsed(drawn).iter(SVG + tag)
    return [each for each in found if kind in (each.get("class") or "").split() or not kind]


def words(drawn: str) -> list[str]:
    return [each.text or "" for each in of(drawn, "text")]


def width(bar: Element) -> float:
    return float(bar.attrib["width"])


def assert_inside(drawn: str) -> None:
    root = parsed(drawn)
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in of(drawn, "rect"):
        if rect.get("class"):
            x, y = float(rect.attrib["x"]), float(rect.attrib["y"])
            assert x >= 0
            assert x + width(rect) <= wide - timeline.DURATIONS + 0.2
            assert 0 <= y <= y + float(rect.attrib["height"]) <= high


@pytest.mark.parametrize(
    "steps", [GOOD, BACK, WAITED, NEXT_DAY, ASKED, GOOD[:1]], ids=lambda steps: steps[-1].step
)
def test_each_step_is_one_labelled_bar_inside_the_picture(steps):
    drawn = timeline.draw(steps)
    assert len(of(drawn, "rect", "bar")) == len(steps)
    assert [each for each in words(drawn) if each in {s.step for s in steps}] == [
        each.step for each in steps
    ]
    assert_inside(drawn)


def test_bars_follow_each_other_in_time_and_their_lengths_are_the_durations():
    bars = of(timeline.draw(list(reversed(BACK))), "rect", "bar")
    edges = [(float(b.attrib["x"]), float(b.attrib["x"]) + width(b)) for b in bars]
    assert all(a[1] <= b[0] + 0.2 for a, b in pairwise(edges))
    snapshot, rehearsal = width(bars[0]), width(bars[1])
    assert rehearsal == pytest.approx(4 * snapshot, rel=0.01)


def test_how_a_step_ended_is_said_in_words_and_by_shape_as_well_as_by_colour():
    drawn = timeline.draw([*BACK, step("reopened", 8.5, None)])
    assert {"1.00 s", "4.00 s", "✗ 1.00 s, failed", "↩ 2.00 s", "… unfinished"} <= {*words(drawn)}
    assert {"done", "rollback", "failed", "no end in the journal"} <= {*words(drawn)}
    (failed,) = of(drawn, "rect", "failed")
    assert failed.get("fill") == "url(#failed)"
    (open_ended,) = of(drawn, "rect", "unfinished")
    assert open_ended.get("stroke-dasharray")
    assert not of(drawn, "rect", "done")[0].get("stroke-dasharray")


@pytest.mark.parametrize("steps", [WAITED, NEXT_DAY], ids=["a person", "nobody"])
def test_hours_without_work_are_cut_short_and_the_work_keeps_its_size(steps):
    drawn = timeline.draw(steps)
    (cut,) = of(drawn, "rect", "cut")
    assert width(cut) == timeline.CUT
    assert width(of(drawn, "rect", "bar")[1]) > 150
    assert any(each.endswith(" min") for each in words(drawn))


def test_a_person_who_is_still_waited_for_is_shown_so():
    drawn = timeline.draw(ASKED)
    assert "still waiting" in words(drawn)
    assert of(drawn, "rect", "waiting")[0].get("stroke-dasharray")


def test_a_short_pause_is_shown_to_scale():
    assert not of(timeline.draw([GOOD[0], step("rehearse", 1.9, 4)]), "rect", "cut")


def test_a_migration_is_marked_within_the_step_that_ran_it():
    moment = Moment(at=AT + timedelta(seconds=5.25), label="011 <applied>")
    drawn = timeline.draw(GOOD, [moment])
    (mark,) = of(drawn, "line", "moment")
    bar = of(drawn, "rect", "bar")[2]
    left = float(bar.attrib["x"])
    assert left < float(mark.attrib["x1"]) < left + width(bar)
    assert mark[0].text == "011 <applied>"
    outside = Moment(at=AT - timedelta(days=1), label="before")
    assert not of(timeline.draw(GOOD, [outside]), "line", "moment")


def test_text_is_escaped():
    name = "<script>alert(1)</script>"
    drawn = timeline.draw([step(name, 0, 1), step("\x00\ud800", 1, 1)])
    assert "<script" not in drawn
    assert f"{name[: timeline.LABEL_CHARACTERS - 1]}…" in words(drawn)
    assert "\ufffd\ufffd" in words(drawn)


def test_the_picture_has_its_own_ground_and_is_the_same_each_time():
    assert timeline.draw(BACK) == timeline.draw(BACK)
    assert of(timeline.draw(BACK), "rect")[3].get("fill") == timeline.GROUND
    address = timeline.data_address(timeline.draw(BACK))
    head, _, body = address.partition(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(body).decode() == timeline.draw(BACK)


def test_without_steps_there_is_no_picture():
    assert timeline.draw([]) == ""


def test_a_length_below_the_ledger_s_resolution_is_none():
    drawn = timeline.draw([step("a", 0, 5e-324), step("b", 5, None)])
    assert_inside(drawn)


def test_many_days_of_waiting_leave_half_of_the_axis_to_the_work():
    drawn = timeline.draw([step("mask", day * 86_400, 600) for day in range(12)])
    assert_inside(drawn)
    bars = of(drawn, "rect", "bar")
    assert [float(bar.attrib["x"]) for bar in bars] == sorted(float(b.attrib["x"]) for b in bars)
    assert sum(map(width, bars)) > 200


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (0.5, "0.5 s"),
        (300, "5 min"),
        (90, "1 min 30 s"),
        (4 * 3600, "4 h"),
        (5400, "1 h 30 min"),
        (10 * 86_400, "10 d"),
    ],
)
def test_a_round_moment_of_the_axis_has_one_unit(second, said):
    assert timeline.tick(second) == said


@given(
    st.lists(
        st.builds(
            step,
            st.one_of(st.text(max_size=40), st.sampled_from(["approve", "roll_back"])),
            st.floats(0, 1e8, allow_nan=False),
            st.one_of(st.none(), st.floats(-10, 1e7, allow_nan=False)),
            st.sampled_from(["done", "failed"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.tuples(st.floats(-10, 1e8, allow_nan=False), st.text(max_size=20)), max_size=4),
)
def test_whatever_the_steps_were_the_picture_is_xml_within_its_frame(steps, moments):
    marks = [Moment(at=AT + timedelta(seconds=s), label=label) for s, label in moments]
    drawn = timeline.draw(steps, marks)
    assert len(of(drawn, "rect", "bar")) == len(steps)
    assert_inside(drawn)
    assert len(of(drawn, "line")) < 60


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.00 s"),
        (0.434, "0.43 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (HOURS, "2 h 13 min"),
        (400_000, "4 d 15 h"),
    ],
)
def test_a_length_of_time_is_said_in_its_own_units(seconds, said):
    assert timeline.duration(seconds) == said
