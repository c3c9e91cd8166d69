"""The numbers in the text form that Prometheus reads."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from airlock import metrics, record
from airlock.metrics import Measured
from airlock.service import Instance, Restart
from tests.unit.test_report import AT, SNAPSHOT, deploy, events

INSTANCE = Instance(
    pid=1, create_time=1, boot_id="b", token=None, release="v2", started_at=AT, directory=Path()
)
RESTART = Restart(
    method="inherited socket", old=None, new=INSTANCE, gap_s=0.012, ready_s=1, note=""
)
FOUND = Measured(
    target="prod",
    last=deploy(
        snapshot=record.dump(SNAPSHOT),
        restart=record.dump(RESTART),
        finished_at=AT + timedelta(seconds=60),
    ),
    events=events(
        ("apply_plan", "intent"),
        ("apply_plan", "failed"),
        ("apply_plan", "intent"),
        ("apply_plan", "done"),
        ("check_health", "intent"),
    ),
    by_state={"succeeded": 5, "rolled_back": 2},
    succeeded_at=AT,
    alerts_waiting=3,
)


def samples(*measured: Measured) -> dict[tuple[str, ...], float]:
    """Name, target and other label values of each line to its number, by Prometheus' parser."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(metrics.render(measured)):
        for each in family.samples:
            labels = dict(each.labels)
            name = each.name.removeprefix("airlock_")
            found[name, labels.pop("target"), *labels.values()] = each.value
    return found


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (("deploys", "prod", "succeeded"), 5),
        (("deploys", "prod", "stranded"), 0),
        (("last_deploy_state", "prod", "deploy", "succeeded"), 1),
        (("last_deploy_state", "prod", "deploy", "stranded"), 0),
        (("last_deploy_info", "prod", "7", "deploy", "011"), 1),
        (("last_deploy_started_timestamp_seconds", "prod"), AT.timestamp()),
        (("last_deploy_finished_timestamp_seconds", "prod"), AT.timestamp() + 60),
        (("last_success_timestamp_seconds", "prod"), AT.timestamp()),
        (("step_duration_seconds", "prod", "apply_plan"), 2),
        (("snapshot_size_bytes", "prod", "physical"), 3 * 2**20),
        (("snapshot_duration_seconds", "prod", "physical"), 2.5),
        (("snapshot_created_timestamp_seconds", "prod", "physical"), AT.timestamp() - 90),
        (("restart_gap_seconds", "prod", "inherited socket"), 0.012),
        (("alerts_waiting", "prod"), 3),
    ],
)
def test_a_line_says_what_the_ledger_has(line, number):
    assert samples(FOUND)[line] == pytest.approx(number)


def test_what_is_not_known_has_no_line():
    names = {line[0] for line in samples(FOUND)}
    assert "heartbeat_timestamp_seconds" not in names
    assert ("step_duration_seconds", "prod", "check_health") not in samples(FOUND)
    assert FOUND.last is not None
    beating = replace(FOUND, last=replace(FOUND.last, state="applying", finished_at=None))
    assert samples(beating)["heartbeat_timestamp_seconds", "prod"] == AT.timestamp()
    fresh = replace(FOUND, last=None, events=(), by_state={}, succeeded_at=None, alerts_waiting=0)
    assert {line[0] for line in samples(fresh)} == {"deploys", "alerts_waiting"}


def test_several_targets_share_one_description():
    text = metrics.render([FOUND, replace(FOUND, target="staging")])
    assert text.count("# TYPE airlock_alerts_waiting gauge") == 1
    assert {("alerts_waiting", "prod"), ("alerts_waiting", "staging")} <= samples(
        FOUND, replace(FOUND, target="staging")
    ).keys()


def test_label_values_are_escaped():
    odd = replace(FOUND, target='a"\n\\')
    assert samples(odd)["alerts_waiting", 'a"\n\\'] == 3


def test_the_file_is_replaced_whole_and_others_may_read_it(tmp_path: Path):
    path = tmp_path / "airlock.prom"
    path.write_text("old")
    reader = path.open()
    metrics.write(path, "new\n")
    assert reader.read() == "old"
    reader.close()
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
