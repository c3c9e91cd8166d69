"""What is said of schedules, from what a Prefect server says of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.schedules import judge

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
NIGHTLY, PROD = "refresh-staging/nightly", "deploy/prod"
LONG_AGO = 3600.0


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def deployment(
    title: str = NIGHTLY,
    *,
    active: bool = True,
    paused: bool = False,
    changed_s: float = LONG_AGO,
    scheduled: bool = True,
) -> dict[str, Any]:
    schedules = [{"active": active, "updated": ago(changed_s)}] if scheduled else []
    return {
        "id": title,
        "paused": paused,
        "updated": ago(LONG_AGO),
        "work_queue_name": "staging",
        "schedules": schedules,
    }


def run(late_s: float, title: str = NIGHTLY) -> dict[str, Any]:
    return {"deployment_id": title, "expected_start_time": ago(late_s)}


def problems(
    *deployments: Mapping[str, Any],
    runs: tuple[Mapping[str, Any], ...] = (),
    occupied: tuple[str, ...] = (),
    polled_s: tuple[float, ...] = (5,),
) -> dict[str, str]:
    heard = [NOW - timedelta(seconds=each) for each in polled_s]
    ours = {each["id"]: each for each in deployments}
    return dict(judge(ours, runs, frozenset(occupied), heard, NOW, "here").problems)


GOOD = {
    "a run is to come": problems(deployment(), runs=(run(-3600),)),
    "a run is a minute late, as on a busy machine": problems(deployment(), runs=(run(60),)),
    "it was switched on a moment ago": problems(deployment(changed_s=30)),
    "it is off, and so is its worker": problems(deployment(active=False), polled_s=()),
    "its deployment is paused": problems(deployment(paused=True), polled_s=()),
    "it waits for a deploy of the same target": problems(
        deployment(), runs=(run(600),), occupied=("staging",)
    ),
    "the run is of somebody else's deployment": problems(
        deployment(active=False), runs=(run(600, "theirs"),)
    ),
    "one of two workers is gone": problems(deployment(), runs=(run(-9),), polled_s=(900, 3)),
}
BAD = {
    "nothing schedules it": (
        problems(deployment()),
        {NIGHTLY: f"{NIGHTLY} is on and has no next run; see the server's log"},
    ),
    "nothing starts it": (
        problems(deployment(), runs=(run(-3600), run(600))),
        {NIGHTLY: f"{NIGHTLY} should have started 10 min ago"},
    ),
    "a person's run is not started either": (
        problems(deployment(PROD, scheduled=False), runs=(run(180, PROD),)),
        {PROD: f"{PROD} should have started 3 min ago"},
    ),
    "the worker has gone": (
        problems(deployment(), runs=(run(-9),), polled_s=(61,)),
        {
            "worker": "no worker of the pool airlock takes runs: last polled at 00:58:59 UTC; "
            "start one"
        },
    ),
    "there never was a worker": (
        problems(deployment(), runs=(run(-9),), polled_s=()),
        {"worker": "no worker of the pool airlock takes runs: never polled; start one"},
    ),
}


@pytest.mark.parametrize("found", GOOD.values(), ids=GOOD)
def test_nothing_is_wrong_where(found: dict[str, str]) -> None:
    assert found == {}


@pytest.mark.parametrize(("found", "said"), BAD.values(), ids=BAD)
def test_it_is_said_where(found: dict[str, str], said: dict[str, str]) -> None:
    assert found == said


def test_the_next_runs_are_named_soonest_first() -> None:
    ours = {title: deployment(title) for title in (PROD, NIGHTLY)}
    runs = [run(-7200, PROD), run(-10_800, PROD), run(-60)]
    found = judge(ours, runs, frozenset(), [NOW], NOW, "here")
    assert found.says == (
        "next: refresh-staging/nightly at 2026-03-29 01:01 UTC, deploy/prod at 2026-03-29 03:00 UTC"
    )
    assert judge({}, [], frozenset(), [], NOW, "here").says == "none is on"
