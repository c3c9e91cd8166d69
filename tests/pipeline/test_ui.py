"""`airlock ui`, and what `make serve` prints of it."""

from __future__ import annotations

import asyncio
import os
import pty
import stat
import sys
from pathlib import Path

import pytest

from airlock import settings
from flows.runtime import Runtime, auth, auth_string_for, running, ticket
from tests.stage import CHECKOUT

TELL = """
from pathlib import Path
from flows.runtime import Runtime, how_to_open
print(how_to_open(Runtime(api_url="http://h/api", auth_string="a:b", state_dir=Path())))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with airlock.toml, where no Prefect server has ever run."""
    (tmp_path / settings.CONFIG_NAME).write_text("", encoding="utf-8")
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / settings.CONFIG_NAME))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


@pytest.fixture
def served(project: Path, prefect_server: Runtime) -> Path:
    """The same, with the server of these tests; its state folder."""
    (project / ".airlock").mkdir()
    (project / ".airlock" / "prefect").symlink_to(prefect_server.state_dir)
    return project / ".airlock" / "prefect"


async def airlock(*arguments: str, **variables: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "airlock", *arguments),
        cwd=CHECKOUT,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode()


async def test_the_browser_is_given_a_file_of_ours_and_no_secret(
    served: Path, prefect_server: Runtime, tmp_path: Path
) -> None:
    seen = tmp_path / "argv"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {seen}\n', encoding="utf-8")
    browser.chmod(0o755)
    assert await airlock("ui", BROWSER=f"{browser} %s") == (0, "")
    page = served / "ui.html"
    assert seen.read_text() == f"{page.as_uri()}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert f"{prefect_server.ui_url}{ticket.PATH}#" in page.read_text()
    assert prefect_server.auth_string not in page.read_text()


async def test_the_link_is_printed_where_no_browser_is(served: Path, prefect_server: Runtime):
    status, said = await airlock("ui", BROWSER="false %s")
    assert (status, "airlock ui --print" in said) == (1, True), said
    status, said = await airlock("ui", "--print")
    address, _, given = said.strip().partition("#")
    assert (status, address) == (0, f"{prefect_server.ui_url}{ticket.PATH}")
    async with prefect_server.client() as http:
        answer = await http.post(f"{prefect_server.ui_url}{ticket.PATH}", content=given)
    assert answer.raise_for_status().text == auth.encoded(prefect_server.auth_string)


async def test_where_no_server_runs_the_next_command_is_named(project: Path) -> None:
    for arguments in (("ui",), ("ui", "--print")):
        status, said = await airlock(*arguments)
        assert (status, "No Prefect server runs" in said, "make serve" in said) == (1, True, True)


async def test_after_a_rotation_the_old_auth_string_is_refused(
    served: Path, prefect_server: Runtime
) -> None:
    kept = (served / auth.FILE).read_text()
    try:
        status, said = await airlock("ui", "--rotate")
        assert (status, f"{prefect_server.ui_url}/api keeps the old one" in said) == (0, True)
        rotated = (served / auth.FILE).read_text()
        assert rotated != kept
        assert rotated.strip() not in said
        assert stat.S_IMODE((served / auth.FILE).stat().st_mode) == 0o600
        # The command line has the new one, which the running server does not know yet.
        status, said = await airlock("ui")
        assert (status, "start the server again" in said) == (1, True), said
    finally:
        (served / auth.FILE).write_text(kept)
    assert (await running(served)) is not None


async def test_an_auth_string_of_the_environment_is_rotated_there(project: Path) -> None:
    status, said = await airlock("ui", "--rotate", **{auth.VARIABLE: "airlock:mine"})
    assert (status, f"{auth.VARIABLE} is set" in said, "mine" in said) == (1, True, False)
    assert not (project / ".airlock" / "prefect" / auth.FILE).exists()


async def test_processes_that_need_it_at_once_make_one_auth_string(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(auth.auth_string, tmp_path) for _ in range(16)))
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [auth.FILE]
    assert stat.S_IMODE((tmp_path / auth.FILE).stat().st_mode) == 0o600


OTHER = "https://prefect.example.com/api"


@pytest.mark.parametrize(
    ("named", "variables", "told"),
    [
        ("ours", {}, "the file's"),
        ("ours", {auth.VARIABLE: "a:given"}, "a:given"),
        ("ours", {"PREFECT_API_URL": OTHER, "PREFECT_API_AUTH_STRING": "a:theirs"}, "the file's"),
        ("other", {}, None),
        ("other", {auth.VARIABLE: "a:given"}, "a:given"),
        ("other", {"PREFECT_API_URL": OTHER, "PREFECT_API_AUTH_STRING": "a:theirs"}, "a:theirs"),
        ("other", {"PREFECT_API_AUTH_STRING": "a:theirs"}, None),
    ],
)
def test_a_server_is_told_the_auth_string_that_was_given_for_it_and_no_other(
    served: Path,
    prefect_server: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    variables: dict[str, str],
    told: str | None,
) -> None:
    for name in (auth.VARIABLE, "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = prefect_server.auth_string if told == "the file's" else told
    assert auth_string_for(prefect_server.api_url if named == "ours" else OTHER) == expected


async def test_a_link_is_printed_to_a_terminal_only() -> None:
    command = (sys.executable, "-c", TELL)
    piped = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    said = (await piped.communicate())[0].decode()
    assert (ticket.PATH in said, "http://h" in said, "airlock ui" in said) == (False, True, True)
    ours, theirs = pty.openpty()
    shown = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, stdout=theirs)
    os.close(theirs)
    assert await shown.wait() == 0
    assert f"http://h{ticket.PATH}#" in os.read(ours, 10_000).decode()
    os.close(ours)
