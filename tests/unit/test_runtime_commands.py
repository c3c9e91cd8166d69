"""What server, worker and deployments are started with, and what is refused before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from airlock.errors import Refused
from flows.runtime import auth, command, prefect_runtime
from flows.runtime.deployments import as_people_left_them, fitting

API_URL = "http://127.0.0.1:4200/api"


def test_the_prefect_of_the_person_who_runs_it_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.com/api")
    monkeypatch.setenv("PREFECT_API_KEY", "theirs")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "theirs")
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example.org")
    ours = command.environment(tmp_path, auth_string="ours", api_url=API_URL)
    assert ours["PREFECT_UI_URL"] == "https://prefect.example.org", "people are sent there"
    assert "theirs" not in ours.values()
    assert ours["PREFECT_API_URL"] == API_URL
    assert ours["PREFECT_HOME"] == str(tmp_path)
    assert ours["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert ours["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"


def test_server_and_clients_have_one_auth_string(tmp_path: Path) -> None:
    ours = command.environment(tmp_path, auth_string="name:pass", api_url=API_URL)
    assert ours["PREFECT_API_AUTH_STRING"] == ours[auth.VARIABLE] == "name:pass"
    assert auth.header("name:pass") == {"Authorization": "Basic bmFtZTpwYXNz"}


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("192.0.2.7", None),
        ("0.0.0.0", "no browser can go there"),  # noqa: S104 – it is refused
        ("::", "no browser can go there"),
        ("localhost", "is no IP address"),
        ("db.example", "is no IP address"),
    ],
)
def test_a_server_listens_on_an_address_that_browsers_can_go_to(host: str, why: str | None) -> None:
    if why is None:
        command.check_host(host)
        return
    with pytest.raises(Refused, match=why):
        command.check_host(host)


def test_an_address_is_written_as_urls_want_it() -> None:
    assert command.api_url("127.0.0.1", 4200) == "http://127.0.0.1:4200/api"
    assert command.api_url("::1", 4200) == "http://[::1]:4200/api"


def test_a_deployment_is_left_out_where_airlock_toml_has_not_its_target() -> None:
    content: dict[str, Any] = yaml.safe_load(command.PREFECT_FILE.read_text(encoding="utf-8"))
    chosen = fitting(content, frozenset({"staging"}))
    targets = [each.get("parameters", {}).get("target") for each in chosen["deployments"]]
    assert "staging" in targets
    assert set(targets) <= {"staging", None}
    assert {**chosen, "deployments": []} == {**content, "deployments": []}
    everything = frozenset({"staging", "prod"})
    assert fitting(content, everything) == content


def test_a_deployment_is_applied_as_people_left_it_on_the_server() -> None:
    content: dict[str, Any] = yaml.safe_load(command.PREFECT_FILE.read_text(encoding="utf-8"))
    there = [
        {**each, "schedules": [{}] if "drift" in each["entrypoint"] else [], "paused": True}
        for each in content["deployments"]
        if each["name"] == "nightly"
    ]
    applied = as_people_left_them(content, there)["deployments"]
    scheduled = [each["entrypoint"] for each in applied if "schedules" in each]
    assert scheduled == [
        "flows.recover.recover",
        "flows.refresh_staging.refresh_staging",
    ], "the server has none for them"
    assert {each["name"] for each in applied if each.get("paused")} == {"nightly"}
    assert as_people_left_them(content, []) == content


@pytest.mark.parametrize(
    "address",
    [
        "prefect.example.org",
        "ftp://prefect.example.org",
        "https://",
        "https://ana:s3cr3t@prefect.example.org",
        "https://prefect.example.org/?a=b",
        "https://prefect.example.org/#a",
        "https://prefect.example.org/ a",
        "https://prefect.example.org:port",
        "javascript:alert(1)",
    ],
)
async def test_an_address_of_the_ui_that_no_link_can_begin_with_is_refused_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", address)
    with pytest.raises(Refused, match=r"PREFECT_UI_URL .*https://prefect\.example\.org") as refused:
        async with prefect_runtime(tmp_path / "prefect", port=0, worker=False):
            pass
    assert "s3cr3t" not in str(refused.value)
    assert not (tmp_path / "prefect").exists()


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:4200", "https://prefect.example.org/ui"])
def test_an_address_of_the_ui_is_taken(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", address)
    command.check_ui_url()
