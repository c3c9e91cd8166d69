"""prefect.yaml names flows and parameters as text; here each name meets its flow."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

from flows.runtime import WORK_POOL
from flows.runtime.deployments import plain

FILE = Path(__file__).parents[2] / "prefect.yaml"
SNAPSHOT = Path(__file__).with_name("prefect_yaml.json")
RENEW = f"If it is meant: {Path(sys.executable).name} -m tests.unit.test_prefect_yaml"
CONTENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    return import_object(deployment["entrypoint"])


def title(deployment: dict[str, Any]) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


def schema(deployment: dict[str, Any]) -> dict[str, Any]:
    """The form that people see of a deployment; its drop-down is whatever project is here."""
    text = json.dumps(plain(parameter_schema(flow_of(deployment)).model_dump()))
    return json.loads(text, object_hook=_whatever_targets)


def _whatever_targets(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "enum": []} if found.get("title") == "Target" else found


def snapshot() -> dict[str, Any]:
    forms = {flow_of(each).name: schema(each) for each in CONTENT["deployments"]}
    return {"file": CONTENT, "forms": forms}


each_deployment = pytest.mark.parametrize("deployment", CONTENT["deployments"], ids=title)


def test_the_whole_file_and_the_forms_are_as_they_were() -> None:
    assert snapshot() == json.loads(SNAPSHOT.read_text(encoding="utf-8")), RENEW


def test_what_is_deployed_is_what_people_look_for() -> None:
    assert {title(deployment) for deployment in CONTENT["deployments"]} == {
        "deploy/staging",
        "deploy/prod",
        "rollback/staging",
        "rollback/prod",
        "recover/all",
        "refresh-staging/nightly",
        "drift/nightly",
    }


@each_deployment
def test_an_entrypoint_is_a_flow_in_a_module(deployment: dict[str, Any]) -> None:
    assert ":" not in deployment["entrypoint"], "a path would put flows/ first on sys.path"
    assert isinstance(flow_of(deployment), Flow)


@each_deployment
def test_a_preset_parameter_is_one_that_the_flow_takes(deployment: dict[str, Any]) -> None:
    signature = inspect.signature(flow_of(deployment).fn)
    signature.bind(**deployment["parameters"])
    flow_of(deployment).validate_parameters(deployment["parameters"])


@each_deployment
def test_a_deployment_of_a_target_presets_it_and_no_more(deployment: dict[str, Any]) -> None:
    if "schedules" not in deployment:
        assert deployment["parameters"] == {"target": deployment["name"]}


@each_deployment
def test_a_schedule_is_off_and_says_whose_clock_it_means(deployment: dict[str, Any]) -> None:
    for schedule in deployment.get("schedules", []):
        assert schedule["active"] is False
        if flow_of(deployment).name == "recover":
            assert schedule.keys() == {"interval", "active"}
            continue
        assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert schedule.keys() == {"cron", "timezone", "active"}


@each_deployment
def test_a_deployment_says_what_happens(deployment: dict[str, Any]) -> None:
    assert len(deployment["description"].splitlines()) > 1


@each_deployment
def test_each_field_of_a_form_says_what_it_means(deployment: dict[str, Any]) -> None:
    for name, field in schema(deployment)["properties"].items():
        assert field.get("description"), name
        assert field.get("title") not in (None, name), name


@each_deployment
def test_each_field_of_a_form_is_one_field(deployment: dict[str, Any]) -> None:
    for name, field in schema(deployment)["properties"].items():
        assert field.keys() & {"type", "anyOf", "$ref"} == {"type"}, name
        assert field.get("default", "") is not None, name


@each_deployment
def test_no_name_or_value_in_it_is_a_secret(deployment: dict[str, Any]) -> None:
    names = {*parameter_schema(flow_of(deployment)).properties, *deployment["parameters"]}
    assert not [each for each in names if re.search("url|password|secret|token|key", each)]
    assert "job_variables" not in deployment["work_pool"]


@each_deployment
def test_the_runs_on_one_target_wait_in_one_queue_but_the_way_out_does_not(
    deployment: dict[str, Any],
) -> None:
    queue = deployment["work_pool"].get("work_queue_name")
    way_out = flow_of(deployment).name in ("rollback", "recover")
    assert queue == (None if way_out else deployment["parameters"].get("target"))


@each_deployment
def test_no_run_holds_a_slot_that_it_would_lose_by_pausing(deployment: dict[str, Any]) -> None:
    # Prefect revokes the slot's lease at the pause, and cancels the run when it cannot renew it.
    assert ("concurrency_limit" in deployment) == (flow_of(deployment).name == "recover")


@each_deployment
def test_the_worker_of_make_serve_takes_it(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] == WORK_POOL


def values(found: object) -> Iterator[str]:
    """Each value that stands somewhere in a file, as text."""
    if isinstance(found, dict | list):
        for each in found.values() if isinstance(found, dict) else found:
            yield from values(each)
    else:
        yield str(found)


def paths(found: object) -> list[str]:
    """Words that begin as a path of a machine does; a quote or a bracket may stand before it."""
    return [
        word
        for value in values(found)
        for word in re.split(r"[\s'\"`=:,(]+", value)
        if re.match(r"(/|~)\w|~/", word)
    ]


@pytest.mark.parametrize(
    "text",
    ["directory: /srv/x", "command: exec '/usr/bin/python' -m x", "env: [{HOME: ~/x}, ok]"],
)
def test_a_path_of_a_machine_is_seen_wherever_it_stands(text: str) -> None:
    assert paths(yaml.safe_load(text))


def test_no_path_of_a_machine_stands_in_the_file() -> None:
    assert paths(CONTENT) == []
    assert os.fspath(FILE.parent) not in FILE.read_text()


if __name__ == "__main__":
    text = json.dumps(snapshot(), indent=2, ensure_ascii=False)
    SNAPSHOT.write_text(f"{text}\n", encoding="utf-8")
