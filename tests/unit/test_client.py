"""What clients felt: counted, thinned, added up, said and drawn."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock import client, html, record, report, settings
from airlock.client import felt, plot, waits
from airlock.client.felt import Channel, Counting, Drawing, Felt, Part, Tally
from airlock.timeline import StepTime
from tests.unit.test_metrics import FOUND, samples
from tests.unit.test_report import VERIFIED, deploy, make

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAITS = st.lists(st.floats(0.05, 60_000), min_size=1, max_size=300)


def counted(waits_ms, *, interval_ms=math.inf, failed=0):
    made = Counting(requests=len(waits_ms) + failed, failed=failed)
    for number, ms in enumerate(waits_ms):
        made.add(AT.timestamp() + number, ms, interval_ms=interval_ms)
    return made.tally


# ---------------------------------------------------------------- counting


@given(WAITS)
def test_the_p99_is_known_to_five_percent(waits_ms):
    exact = sorted(waits_ms)[math.ceil(0.99 * len(waits_ms)) - 1]
    found = counted(waits_ms).p99_ms
    assert exact * 0.999 <= found <= exact * 1.051


@given(st.lists(WAITS, min_size=1, max_size=5))
def test_what_several_probes_counted_adds_up_to_what_one_would_have(parts):
    added = reduce(Tally.__add__, map(counted, parts), Tally())
    at_once = counted([ms for part in parts for ms in part])
    assert (added.requests, added.longest_ms, added.waits) == (
        at_once.requests,
        at_once.longest_ms,
        at_once.waits,
    )


def test_while_one_waits_those_wait_that_would_have_come_meanwhile():
    assert list(felt.owed(120, 50)) == [120, 70, 20]
    assert list(felt.owed(3, 50)) == [3]
    stalled = counted([1.0] * 100 + [5000.0], interval_ms=50)
    assert stalled.requests == 101
    assert sum(stalled.waits.values()) == 200
    assert stalled.p99_ms > 4800


@given(st.lists(st.tuples(st.floats(0, 100_000), st.floats(0.05, 60_000)), min_size=1))
def test_a_line_stays_small_and_keeps_the_longest_wait_where_it_was(waits_at):
    drawing = Drawing("database read", 0.0)
    for at, ms in waits_at:
        drawing.add(at, ms)
        drawing.fail(at)
    line = drawing.line
    assert max(line.longest_ms) < felt.POINTS
    assert sum(line.failed.values()) == len(waits_at)
    for at, ms in waits_at:
        assert line.longest_ms[int(at / line.width_s)] >= round(ms, 2)


# ---------------------------------------------------------------- what is said


def part(*channels, touched=True, **more):
    touched_at = AT if touched else None
    given = {"began_at": AT, "until_at": AT, "is_whole": True, **more}
    return Part(channels=channels, touched_at=touched_at, **given)


READ = Channel(
    name="/deals, new connections",
    kind="service read",
    before=counted([7.0] * 99),
    during=counted([9.0] * 99 + [12.0]),
)
WRITE = Channel(name="table public.deals", kind="database write", during=counted([31.0]))
FAILING = Channel(name="/deals", kind="service write", during=counted([2500.0], failed=3))
SILENT = Channel(name="table public.x", kind="database read", why_not="permission denied")

SENTENCES = {
    "all is measured": (
        (part(READ, WRITE),),
        (
            "Longest stall of a read 12 ms, of a write 31 ms; 0 of 200 requests failed; "
            "p99 12 ms (7.0 ms before)"
        ),
    ),
    "requests failed": (
        (part(FAILING),),
        "Longest stall of a write 2.50 s; 3 of 4 requests failed; p99 2.50 s",
    ),
    "production was not touched": (
        (part(Channel(name="/", kind="service read", before=READ.before), touched=False),),
        (
            "Longest stall of a read 7.0 ms; 0 of 99 requests failed; "
            "p99 7.0 ms, and production was not touched"
        ),
    ),
    "two runners": (
        (part(READ), part(READ, WRITE)),
        (
            "Longest stall of a read 12 ms, of a write 31 ms; 0 of 399 requests failed; "
            "p99 12 ms (7.0 ms before)"
        ),
    ),
    "nothing answered": (
        (part(SILENT),),
        "Not measured: database read, table public.x: permission denied",
    ),
    "the probe did not start": (
        (part(note="the probe did not start: no memory"),),
        "Not measured: the probe did not start: no memory",
    ),
}


@pytest.mark.parametrize(("parts", "said"), SENTENCES.values(), ids=SENTENCES)
def test_the_numbers_in_one_sentence(parts, said):
    found = Felt(parts=tuple(record.load(Part, record.dump(each)) for each in parts))
    assert found.sentence == said


def test_a_probe_that_ended_early_is_a_gap():
    found = Felt(parts=(part(READ, SILENT, is_whole=False),))
    assert list(found.gaps) == [
        "anything after 12:00:00 UTC, when the probe ended",
        "database read, table public.x: permission denied",
    ]


def test_a_channel_that_another_probe_reached_is_no_gap():
    reached = Channel(name=SILENT.name, kind=SILENT.kind, during=counted([1.0]))
    assert list(Felt(parts=(part(SILENT), part(reached))).gaps) == []


# ---------------------------------------------------------------- the plot


def drawn(steps, *, ms=4.0, before_s=20.0, during_s=8.0, failed=0):
    made = []
    for began, length in ((-before_s, before_s), (0.0, during_s)):
        line = Drawing("database read", AT.timestamp() + began)
        for number in range(round(length * 20)):
            line.add(line.began + number / 20, ms)
        made.append(line)
    for number in range(failed):
        made[-1].fail(AT.timestamp() + number)
    channel = Channel(name="table a", kind="database read", during=counted([ms]))
    seen = Felt(parts=(part(channel, lines=tuple(line.line for line in made)),))
    return plot.draw(seen, steps)


def of(svg, name, kind):
    found = ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{name}")  # noqa: S314 – ours
    return [each for each in found if each.get("class") == kind]


def step(name, began_s, seconds, ended="done"):
    began_at = AT + timedelta(seconds=began_s)
    return StepTime(step=name, began_at=began_at, seconds=seconds, ended=ended)


DEPLOY = (
    step("prepare_release", -19.8, 0.4),
    step("take_snapshot", -19.3, 2.0),
    step("rehearse", -17.0, 16.5),
    step("apply_plan", 0.0, 0.2),
    step("verify_schema", 0.25, 0.2),
    step("restart_service", 0.5, 1.4),
    step("check_health", 2.0, 3.0, "failed"),
    step("roll_back", 5.1, 2.5),
)


def test_the_plot_names_each_step_and_the_longest_stall():
    svg = drawn(DEPLOY, ms=64)
    assert [each.text for each in of(svg, "text", "label")] == [each.step for each in DEPLOY]
    assert "longest 64 ms: database read, table a" in svg
    assert of(svg, "path", "failure") == []


def test_failures_are_marked():
    assert len(of(drawn(DEPLOY, failed=3), "path", "failure")) == 3


def test_what_was_before_takes_a_third_of_the_width_at_most():
    svg = drawn(DEPLOY, before_s=7200)
    apply = next(each for each in of(svg, "rect", "step") if "apply_plan" in each[0].text)
    assert float(apply.get("x")) < plot.LEFT + plot.BEFORE_SHARE * (plot.RIGHT - plot.LEFT) + 1


@given(
    st.lists(
        st.tuples(st.sampled_from([each.step for each in DEPLOY]), st.floats(0.0, 6.0)),
        max_size=12,
    )
)
def test_names_of_steps_never_touch_each_other(spans):
    began, steps = -19.0, []
    for name, seconds in spans:
        steps.append(step(name, began, seconds))
        began += seconds + 0.05
    places = []
    for each in of(drawn(steps), "text", "label"):
        left = float(each.get("x"))
        places.append((each.get("y"), left, left + plot._CHARACTER * len(each.text)))
        assert left >= plot.LEFT
        assert places[-1][2] <= plot.RIGHT + 0.1
    for (row, left, right), (other, begin, end) in combinations(places, 2):
        assert row != other or right < begin or end < left


def test_there_is_no_plot_of_nothing():
    assert plot.draw(Felt(parts=(part(READ),)), DEPLOY) == ""


# ---------------------------------------------------------------- where it is shown


DREW = Drawing("service read", AT.timestamp())
DREW.add(AT.timestamp(), 12.0)
SEEN = Felt(parts=(part(READ, WRITE, SILENT, lines=(DREW.line,)),))


def test_the_report_has_the_sentence_the_plot_and_a_row_for_each_channel():
    found = make(deploy(), *VERIFIED, felt=SEEN)
    shown = report.markdown(found, pictures=True)
    missing = "Not measured: database read, table public.x: permission denied."
    picture = f"![{SEEN.sentence}](data:image/svg+xml;base64,"
    assert f"## What clients felt\n\n{SEEN.sentence}. {missing}\n\n{picture}" in shown
    row = "| service read | /deals, new connections | 199 | 0 | 12 ms | 9.3 ms | 7.0 ms |\n"
    assert row in shown.partition(picture)[2]
    assert f"| Clients felt | {SEEN.sentence} |" in shown
    assert "data:image" not in report.markdown(found)
    assert f'<img alt="{SEEN.sentence}" src="data:image/svg+xml;base64,' in html.page(found)


def test_the_report_says_why_nothing_was_measured():
    found = make(deploy(), felt=Felt(parts=(part(note="the probe did not start: no memory"),)))
    said = "## What clients felt\n\nNot measured: the probe did not start: no memory.\n"
    assert said in report.markdown(found, pictures=True)
    assert "What clients felt" not in report.markdown(make(deploy()))


def test_prometheus_hears_the_longest_waits_and_what_failed():
    found = samples(replace(FOUND, felt=Felt(parts=(part(READ, FAILING),))))
    assert found["client_longest_seconds", "prod", "read"] == 0.012
    assert found["client_longest_seconds", "prod", "write"] == 2.5
    assert found["client_requests_failed", "prod"] == 3
    assert not any(name[0].startswith("client") for name in samples(FOUND))


# ---------------------------------------------------------------- at this moment


def target(folder: Path) -> settings.Target:
    (folder / "airlock.toml").write_text('[targets.prod]\ndatabase_url_env = "X"\n')
    return settings.load(folder / "airlock.toml").target("prod")


def test_how_long_clients_wait_is_known_while_a_probe_runs_and_no_longer(tmp_path):
    prod = target(tmp_path)
    assert client.recent(prod, 7) is None
    now = time.monotonic()
    with waits.writing(waits.path(prod, 7, 3)) as write:
        write(now - 60, 900.0)
        write(now - 1, 40.0)
        write(now, 12.5)
        assert client.recent(prod, 7, within_s=30) == 40.0
        assert client.recent(prod, 8) is None
        assert waits.path(prod, 7, 3).stat().st_mode & 0o777 == 0o600
    assert client.recent(prod, 7) is None


def test_a_probe_that_says_nothing_any_more_is_gone(tmp_path):
    prod = target(tmp_path)
    with waits.writing(waits.path(prod, 7, 3)) as write:
        write(time.monotonic() - waits.STALE_S - 1, 12.5)
        assert client.recent(prod, 7, within_s=30) is None
