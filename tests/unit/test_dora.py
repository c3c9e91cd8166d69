"""The four measures of delivery, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from airlock import dora, timeline
from airlock.dora import History
from airlock.ledger import Outcome
from tests.unit.test_report import deploy

NOW = datetime(2026, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def outcome(days_ago: float, **changed: Any) -> Outcome:
    began = NOW - days_ago * DAY
    good = Outcome(
        id=1,
        state="succeeded",
        created_at=began,
        finished_at=began + timedelta(minutes=2),
        commit=None,
        committed_at=None,
        failed_at=None,
    )
    return replace(good, **changed)


def back(days_ago: float, minutes: float) -> Outcome:
    """Rolled back, so many minutes after its failure."""
    began = NOW - days_ago * DAY
    failed_at = began + timedelta(minutes=1)
    return outcome(
        days_ago,
        state="rolled_back",
        failed_at=failed_at,
        finished_at=failed_at + timedelta(minutes=minutes),
    )


def measured(*outcomes: Outcome) -> dora.Dora:
    return dora.measure(outcomes, now=NOW)


def values(found: dora.Dora) -> dict[str, str]:
    return {each.name: each.value for each in found.measures}


def test_deploys_that_changed_production_are_counted_and_refused_ones_are_not():
    refused = outcome(20, state="failed", finished_at=NOW)
    found = measured(outcome(28), refused, back(14, 1), outcome(7, state="stranded"))
    assert (found.changed, found.failed) == (3, 2)
    assert found.per_week == pytest.approx(0.75)
    assert values(found)["Deploy frequency"] == "0.8 per week"
    assert values(found)["Change failure rate"] == "67%"


def test_the_first_deploy_yesterday_is_not_seven_a_week():
    assert measured(outcome(1)).per_week == 1
    assert (
        "1 deploy changed the target in the last 1 day" in measured(outcome(1)).measures[0].meaning
    )


def test_the_window_is_ninety_days_at_most():
    assert dora.window(NOW) == NOW - 90 * DAY
    assert measured(outcome(400)).since == NOW - 90 * DAY


def test_lead_time_is_the_median_from_a_commit_to_its_first_time_live():
    def live(days_ago: float, commit: str, hours: float) -> Outcome:
        each = outcome(days_ago, commit=commit)
        assert each.finished_at is not None
        return replace(each, committed_at=each.finished_at - timedelta(hours=hours))

    again = live(4, "a", 999)
    found = measured(live(9, "a", 1), live(8, "b", 2), live(7, "c", 30), again, outcome(3))
    assert (found.lead_s, found.leads, found.lead_from_commit) == (7200, 3, True)
    assert "commit" in found.measures[1].meaning


def test_without_commits_lead_time_begins_at_the_request_and_says_so():
    found = measured(outcome(3), outcome(2), back(1, 1))
    assert (found.lead_s, found.leads, found.lead_from_commit) == (120, 2, False)
    assert "from the request, as no release had a commit" in found.measures[1].meaning


def test_time_to_restore_is_the_median_from_failure_to_everything_being_back():
    stranded = outcome(1, state="stranded", finished_at=None, failed_at=NOW - DAY)
    found = measured(back(9, 1), back(8, 3), back(7, 500), stranded)
    assert (found.restore_s, found.restored, found.failed) == (180, 3, 4)


def test_before_the_first_deploy_there_is_nothing_to_measure():
    found = measured()
    assert values(found) == {
        "Deploy frequency": "0.0 per week",
        "Lead time for changes": "none",
        "Change failure rate": "none",
        "Time to restore": "none",
    }
    assert found.to_dict()["change_failure_rate"] is None


def test_each_week_has_its_bar_with_the_failed_part_hatched():
    weeks = [outcome(1), outcome(2), back(3, 1), outcome(30), outcome(-8), outcome(400)]
    drawn = dora.sparkline(weeks, now=NOW)
    root = ElementTree.fromstring(drawn)  # noqa: S314 – ours
    bars = [each for each in root.iter() if each.get("class")]
    assert [each.get("class") for each in bars] == ["done", "done", "failed"]
    high = [float(each.attrib["height"]) for each in bars]
    assert high[1] == pytest.approx(2 * high[2], abs=0.1)
    assert bars[2].get("fill") == timeline.FILLS["failed"]
    wide = float(root.attrib["width"])
    assert all(float(b.attrib["x"]) + float(b.attrib["width"]) < wide for b in bars)
    assert float(bars[0].attrib["x"]) < float(bars[1].attrib["x"]) == float(bars[2].attrib["x"])


def test_the_markdown_has_the_measures_a_picture_and_the_last_deploys():
    recent = (deploy(requester="<b>Ada|"),)
    text = dora.markdown(History(target="prod", recent=recent, outcomes=(outcome(1),), until=NOW))
    assert text.startswith("# Deploys of prod\n")
    assert "| Change failure rate | 0% | 0 of 1 were rolled back" in text
    assert "](data:image/svg+xml;base64," in text
    assert "| 7 | 2026-01-02 03:04 | DEPLOYED – prod stands at 011 | \\<b>Ada\\| |" in text
