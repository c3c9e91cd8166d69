from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airlock.errors import Refused
from airlock.service import command, starting, systemd
from airlock.service.process import matches
from airlock.settings import ServiceSettings

APP = Path("/srv/app")
SERVICE = ServiceSettings(directory=APP)


def test_the_launcher_gets_sockets_log_and_folder_and_then_the_command_unchanged() -> None:
    built = starting.launch_command(
        ("python3", "start_server.py", "--listen"),
        fds=(7, 9),
        log_file=Path("/l/one.log"),
        directory=APP,
    )
    assert built == [
        *(sys.executable, "-I", "-S", str(starting.LAUNCH)),
        *("--fds", "7,9", "--log", "/l/one.log", "--directory", "/srv/app"),
        *("--", "python3", "start_server.py", "--listen"),
    ]


@pytest.mark.parametrize(
    ("found", "folder", "same"),
    [
        (["python3", "start_server.py"], "/srv/app", True),
        (["/usr/bin/python3.11", "-u", "start_server.py"], "/srv/app", True),
        (["python", "/srv/app/start_server.py"], "/home/me", True),
        (["python3", "app/start_server.py"], "/srv", True),
        (["python3", "start_server.py"], "/srv/.airlock/releases/abc", True),
        (["python3", "start_server.py"], "/srv/other", False),
        (["python3", "start_server.py", "--debug"], "/srv/app", False),
        (["python3", "other.py"], "/srv/app", False),
        (["node", "start_server.py"], "/srv/app", False),
        (["start_server.py"], "/srv/app", False),
        ([], "/srv/app", False),
        (["python3", "start_server.py"], None, False),
    ],
)
def test_a_service_started_by_hand_is_known_by_command_and_folder(
    found: list[str], folder: str | None, same: bool
) -> None:
    where = Path(folder) if folder else None
    assert matches(found, where, SERVICE, Path("/srv/.airlock")) is same


def test_units_are_named_after_a_double_dash() -> None:
    assert systemd.action_command("restart", "app.service") == [
        *("systemctl", "restart", "--", "app.service"),
    ]
    assert systemd.show_command("-x")[-2:] == ["--", "-x"]
    assert systemd.journal_command("app.service")[-1] == "--unit=app.service"


@pytest.mark.parametrize(
    ("text", "pid", "running"),
    [
        ("MainPID=42\nActiveState=active\nSubState=running\nResult=success\n", 42, True),
        ("MainPID=0\nActiveState=failed\nSubState=failed\nResult=exit-code\n", 0, False),
        ("MainPID=\nActiveState=activating\n", 0, False),
        ("", 0, False),
    ],
)
def test_the_state_of_a_unit_is_read(text: str, pid: int, running: bool) -> None:
    state = systemd.parse_state(text)
    assert (state.pid, state.is_running) == (pid, running)


@pytest.mark.parametrize(
    ("settings", "running", "expected"),
    [
        ({"start": ("up",)}, False, [["up"]]),
        ({"start": ("up",), "stop": ("down",)}, False, [["up"]]),
        ({"start": ("up",), "stop": ("down",)}, True, [["down"], ["up"]]),
        ({"start": ("up",), "stop": ("down",), "reload": ("re",)}, True, [["re"]]),
        ({"start": ("up",), "reload": ("re",)}, False, [["up"]]),
        ({"reload": ("re",)}, False, [["re"]]),
    ],
)
def test_reload_is_preferred_and_stop_needs_something_to_stop(
    settings: dict[str, object], running: bool, expected: list[list[str]]
) -> None:
    service = ServiceSettings.model_validate({"adapter": "command", **settings})
    assert command.commands(service, running=running) == expected


def test_without_start_and_reload_the_command_adapter_is_refused() -> None:
    with pytest.raises(Refused, match="neither start nor reload"):
        command.commands(ServiceSettings(adapter="command"), running=True)
