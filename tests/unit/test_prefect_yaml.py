"""prefect.yaml names flows and parameters as text; here each name meets its flow."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow
from prefect.utilities.importtools import import_object

from flows.runtime import WORK_POOL

FILE = Path(__file__).parents[2] / "prefect.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    return import_object(deployment["entrypoint"])


def title(deployment: dict[str, Any]) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


each_deployment = pytest.mark.parametrize("deployment", CONTENT["deployments"], ids=title)


def test_staging_and_prod_can_be_deployed_and_rolled_back() -> None:
    assert {title(deployment) for deployment in CONTENT["deployments"]} == {
        "deploy/staging",
        "deploy/prod",
        "rollback/staging",
        "rollback/prod",
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
def test_a_deployment_presets_its_own_target_only(deployment: dict[str, Any]) -> None:
    assert deployment["parameters"] == {"target": deployment["name"]}


@each_deployment
def test_a_second_run_on_a_target_waits_its_turn(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


@each_deployment
def test_the_worker_of_make_serve_takes_it(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] == WORK_POOL
    assert not Path(deployment["work_pool"]["job_variables"]["working_dir"]).is_absolute()


def test_no_path_of_a_machine_stands_in_the_file() -> None:
    values = re.findall(r"^[^#\n]*?[:\s](/[\w./-]+|~[\w./-]*)\s*$", FILE.read_text(), re.MULTILINE)
    assert values == []
    assert os.fspath(FILE.parent) not in FILE.read_text()
