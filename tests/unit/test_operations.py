"""docs/install: each file is well formed, starts what exists, and holds no secret."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli._app import _app as prefect_cli
from prefect.settings.legacy import _get_valid_setting_names
from prefect.settings.models.root import Settings

from airlock import settings
from airlock.__main__ import app as airlock_cli
from flows import worker
from flows.runtime import server
from flows.runtime.command import WORK_POOL, WORKER

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "install"
PYTHON = "/srv/airlock/.venv/bin/python"
UNITS = sorted(FOLDER.glob("*.service"))
ENV_FILES = sorted(FOLDER.glob("*.env.example"))
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SECRETS = re.compile(r"AUTH_STRING|PASSWORD|CONNECTION_URL|DATABASE_URL|SLACK_URL")

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
each_service = pytest.mark.parametrize("name", COMPOSE["services"])


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def unit_commands() -> Iterator[tuple[str, list[str]]]:
    for unit in UNITS:
        for key in ("ExecStartPre", "ExecStart", "ExecStartPost"):
            for line in values(unit, key):
                yield unit.name, shlex.split(line)


def compose_commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in COMPOSE["services"].items():
        if "image" in service and service["image"] != "airlock":
            continue
        command = service["command"]
        yield (
            name,
            shlex.split(command[2].removesuffix("; done").partition("do ")[2])
            if (command[0] == "sh")
            else command,
        )


COMMANDS = [*unit_commands(), *compose_commands()]


@pytest.mark.parametrize("command", [c for _, c in COMMANDS], ids=[f"{n}" for n, _ in COMMANDS])
def test_what_is_started_exists_with_these_options(command: list[str]) -> None:
    at = command.index("-m")
    python, *flags = command[:at]
    module, *arguments = command[at + 1 :]
    assert (python in (PYTHON, "python"), flags in ([], ["-P"])) == (True, True)
    assert importlib.util.find_spec(module), f"there is no module {module}"
    if module == "prefect":
        found, bound, *_ = prefect_cli.parse_args(arguments, exit_on_error=False)
        assert found.__module__.startswith("prefect.cli")
        assert bound.arguments or "services" in arguments
    elif module == "airlock":
        assert arguments[0] in {each.callback.__name__ for each in airlock_cli.registered_commands}
    elif module == "flows.runtime.server":
        assert server.parser().parse_args(arguments).no_services
    elif module == "flows.worker":
        assert worker.parser().parse_args(arguments).pool == WORK_POOL
    else:
        assert (module, arguments) == ("flows.publish", [])


def test_prefects_server_is_started_behind_our_door() -> None:
    started = [name for name, command in COMMANDS if "flows.runtime.server" in command]
    assert started == ["airlock-server.service", "server"]
    others = [name for name, command in COMMANDS if "prefect server start" in " ".join(command)]
    assert others == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in (*UNITS, *FOLDER.glob("*.timer")):
        text = unit.read_text(encoding="utf-8").replace(PYTHON, sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    files = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@each_unit
def test_a_unit_takes_what_is_secret_from_a_file_that_only_root_reads(unit: Path) -> None:
    (file,) = values(unit, "EnvironmentFile")
    template = FOLDER / f"{Path(file).name}.example"
    assert file.startswith("/etc/airlock/")
    assert "mode 0600, owner root" in template.read_text(encoding="utf-8")
    assert not SECRETS.search(" ".join(values(unit, "Environment")))
    assert values(unit, "User") == ["airlock"]
    assert values(unit, "NoNewPrivileges") == ["yes"]
    assert values(unit, "ProtectSystem") == ["strict"]


def test_the_workers_take_the_runs_of_our_pool_under_names_of_their_own() -> None:
    (unit,) = (unit for unit in UNITS if "@" in unit.name)
    (command,) = (shlex.split(line) for line in values(unit, "ExecStart"))
    assert command[command.index("--name") + 1].endswith("%i")
    assert command[command.index("--name") + 1] != WORKER


@pytest.mark.parametrize("file", ENV_FILES, ids=lambda path: path.name)
def test_an_env_file_names_settings_that_exist_and_no_secret(file: Path) -> None:
    given = settings.env_values(file)
    known = _get_valid_setting_names(Settings)
    unknown = [
        name
        for name in given
        if name.startswith("PREFECT_")
        and not name.startswith("PREFECT_REDIS_")
        and name not in known
    ]
    assert unknown == []
    assert {name: value for name, value in given.items() if SECRETS.search(name) and value} == {}
    assert not any("@" in value for value in given.values())


def test_server_and_clients_are_given_the_auth_string() -> None:
    servers, workers = (settings.env_values(FOLDER / f"{n}.env.example") for n in SIDES)
    assert "PREFECT_SERVER_API_AUTH_STRING" in servers
    assert "PREFECT_API_AUTH_STRING" in workers
    assert servers["PREFECT_API_URL"] == workers["PREFECT_API_URL"]
    assert servers["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "*" not in servers["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert servers["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"


SIDES = ("server", "worker")


def test_the_server_listens_on_the_loopback_address_only() -> None:
    hosts = [c[c.index("--host") + 1] for n, c in unit_commands() if "--host" in c]
    assert hosts == ["127.0.0.1"]
    for service in COMPOSE["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


@each_service
def test_a_container_has_its_secrets_from_files(name: str) -> None:
    service = COMPOSE["services"][name]
    if service["image"] == "airlock":
        assert service["env_file"] in {f"{side}.env" for side in SIDES}
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    environment = service.get("environment", {})
    assert not [key for key in environment if SECRETS.search(key) and not key.endswith("_FILE")]
    for needed in service.get("depends_on", {}):
        assert needed in COMPOSE["services"]


def test_secrets_that_lie_beside_the_examples_are_not_in_git() -> None:
    ignored = (FOLDER / ".gitignore").read_text(encoding="utf-8").split()
    assert set(ignored) == {*(f"{side}.env" for side in SIDES), "postgres.password"}


def test_the_image_holds_the_checkout_by_name_and_nothing_else() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        word
        for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert "." not in copied
    assert not [name for name in copied if not (ROOT / name).exists()]
    assert {"airlock", "flows", "tasks", "migrations", "prefect.yaml"} <= {*copied}


def test_the_manual_names_each_file() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if path.name != ".gitignore":
            assert f"(install/{path.name})" in manual, path.name
