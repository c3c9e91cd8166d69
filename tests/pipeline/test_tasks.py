"""The policy around each step: what is tried again, how often, and under which name."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ParameterTypeError
from pydantic import ValidationError

import tasks
from airlock.errors import Broken, Refused, Transient
from flows.deploy import deploy
from flows.rollback import rollback
from tasks.policy import is_transient

MODULES = [found.name for found in pkgutil.iter_modules(tasks.__path__) if found.name != "policy"]

# They only show what is known, so any failure may be tried again.
PICTURES = ("write_report", "show_rehearsal")


def the_task(module: str) -> Task:
    return getattr(importlib.import_module(f"tasks.{module}"), module)


@pytest.mark.parametrize("module", MODULES)
def test_each_file_holds_one_task_of_its_own_name(module):
    found = the_task(module)
    assert isinstance(found, Task)
    assert found.name == module
    assert found.task_run_name
    assert found.timeout_seconds


@pytest.mark.parametrize("module", MODULES)
def test_no_task_serves_an_older_run_s_result(module):
    assert the_task(module).cache_policy == NO_CACHE


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PICTURES])
def test_a_step_is_tried_again_only_when_nothing_changed(module):
    found = the_task(module)
    assert not found.retries or found.retry_condition_fn is is_transient


@pytest.mark.parametrize(
    ("error", "attempts"), [(Transient("later"), 3), (Broken("changed"), 1), (Refused("no"), 1)]
)
async def test_only_transient_errors_are_tried_again(error, attempts):
    seen = []

    @task(retries=2, retry_condition_fn=is_transient, cache_policy=NO_CACHE)
    async def step() -> None:
        seen.append(1)
        raise error

    @flow
    async def story() -> None:
        await step()

    with pytest.raises(type(error)):
        await story()
    assert len(seen) == attempts


@pytest.mark.parametrize(
    "parameters",
    [{"target": "prod", "up_to": 0}, {"target": "prod", "reason": "x" * 501}, {"up_to": 3}],
    ids=["below one", "a long reason", "no target"],
)
async def test_parameters_out_of_bounds_start_nothing(parameters):
    with pytest.raises((ParameterTypeError, ValidationError, TypeError)):
        await deploy(**parameters)


@pytest.mark.parametrize("story", [deploy, rollback])
def test_a_flow_is_not_tried_again_by_itself(story):
    assert story.retries == 0


def test_no_parameter_of_a_flow_can_hold_a_secret():
    names = {*deploy.parameters.properties, *rollback.parameters.properties}
    form = {"target", "up_to", "release", "reason", "requester", "dry_run"}
    assert names == form | {"ask", "lock_timeout_ms", "skip", "number"}
