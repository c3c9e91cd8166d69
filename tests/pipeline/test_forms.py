"""What the API takes from a form, what it refuses, and where a reason has to be given."""

from __future__ import annotations

import pytest
from prefect import get_client
from prefect.utilities.callables import parameter_schema

from airlock import settings
from flows import form
from flows.deploy import deploy
from flows.rollback import rollback
from flows.runtime import WORK_POOL
from flows.runtime.api import create_work_pool
from flows.runtime.deployments import draw_plainly

TARGET = (form.choice().get("enum") or ["prod"])[0]


@pytest.fixture
async def started(prefect_server):
    """A function: parameters to the API's answer when a deployment is started with them."""
    async with prefect_server.client() as http:
        await create_work_pool(http)
    async with get_client() as prefect:
        number = await prefect.create_deployment(
            await prefect.create_flow(deploy),
            name="form",
            parameter_openapi_schema=parameter_schema(deploy).model_dump_for_openapi(),
            work_pool_name=WORK_POOL,
            enforce_parameter_schema=True,
        )
        async with prefect_server.client() as http:
            await draw_plainly(http)
        drawn = (await prefect.read_deployment(number)).parameter_openapi_schema
        assert "anyOf" not in str(drawn)

    async def start(**parameters):
        async with prefect_server.client() as http:
            return await http.post(
                f"/deployments/{number}/create_flow_run", json={"parameters": parameters}
            )

    return start


async def test_the_api_takes_a_form_that_is_filled_in_completely(started):
    answer = await started(
        target=TARGET,
        up_to=10,
        release="v2",
        reason="halts",
        requester="Ada",
        dry_run=True,
        ask=True,
        lock_timeout_ms=500,
        skip=["drift", "lock_budget", "smoke", "log_errors", "bake"],
    )
    assert answer.status_code == 201


async def test_what_may_be_empty_may_be_missing_and_null(started):
    for name in ("up_to", "release", "lock_timeout_ms"):
        assert (await started(target=TARGET)).status_code == 201
        answer = await started(target=TARGET, **{name: None})
        assert answer.status_code == 201, answer.text


async def test_the_api_refuses_what_is_outside_the_form(started):
    for outside in (
        {"target": "nowhere"},
        {"up_to": 0},
        {"up_to": "ten"},
        {"release": ""},
        {"reason": "x" * 501},
        {"requester": "x" * 201},
        {"dry_run": "perhaps"},
        {"lock_timeout_ms": 9},
        {"lock_timeout_ms": 60_001},
        {"skip": ["health"]},
        {"skip": ["bake", "bake"]},
    ):
        answer = await started(**{"target": TARGET, **outside})
        assert answer.status_code == 409, (outside, answer.text)
        assert next(iter(outside)) in answer.text
    assert (await started(up_to=10)).status_code == 409


@pytest.fixture
def strict(tmp_path, monkeypatch):
    (tmp_path / "airlock.toml").write_text(
        '[targets.prod]\ndatabase_url_env = "NOT_SET"\nrequire_reason = true\n', encoding="utf-8"
    )
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / "airlock.toml"))
    monkeypatch.delenv("NOT_SET", raising=False)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"target": "nowhere"}, "There is no target 'nowhere'"),
        ({"target": "prod"}, "requires a reason"),
        ({"target": "prod", "reason": "halts"}, "NOT_SET"),
    ],
)
@pytest.mark.parametrize("story", [deploy, rollback])
@pytest.mark.usefixtures("strict")
async def test_a_flow_refuses_at_once_and_in_our_own_words(story, parameters, said):
    state = await story(**parameters, return_state=True)
    assert (state.name, said in state.message) == ("Refused", True), state.message


def test_the_drop_down_has_the_targets_of_airlock_toml(tmp_path, monkeypatch):
    config = tmp_path / "airlock.toml"
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(config))
    assert form.choice() == {}
    config.write_text("[targets.b]\ndatabase_url_env = 'B'\n[targets.a]\ndatabase_url_env = 'A'\n")
    assert form.choice() == {"enum": ["b", "a"]}
    config.write_text("[targets")
    assert form.choice() == {}
