"""The Prefect server that `make serve`, the command line and the demo start."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import secrets
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airlock.errors import Refused
from flows.runtime import Runtime, auth, running, ticket

ANOTHER = "another user of this machine"
SITE = "a site whose name points at this machine"
OLD_LINK = "somebody who reads the browser's history"
FOREIGN = "rebound.example:4200"
NOBODY = pwd.getpwnam("nobody")
SHUT = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
MISDIRECTED = 421

# Root's Python may be closed to others: it becomes one of them when it has all that it needs.
BECOME = """
import encodings.idna, glob, json, os, sys, urllib.error, urllib.request
uid, gid = int(sys.argv.pop(1)), int(sys.argv.pop(1))
os.chdir("/"); os.setgroups([]); os.setgid(gid); os.setuid(uid)
"""
# What Prefect's client does, with nothing but Python: a token first, then what was asked for.
CALLS = """
base, calls = sys.argv[1], json.loads(sys.argv[2])
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
def call(method, path, body, headers):
    asked = urllib.request.Request(base + path, method=method, headers=headers,
        data=None if body is None else json.dumps(body).encode())
    asked.add_header("Content-Type", "application/json")
    try:
        with open_url(asked, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
status, text = call("GET", "/csrf-token?client=stranger", None, {})
token = json.loads(text)["token"] if status == 200 else "none"
headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "stranger"}
print(json.dumps([status, *(call(*each, headers)[0] for each in calls)]))
"""
# What the kernel shows of each process to a user of the machine.
PROCESSES = """
shown, hidden = "", 0
for name in ("cmdline", "environ"):
    for path in glob.glob(f"/proc/[0-9]*/{name}"):
        try:
            shown += open(path, errors="replace").read() + "\\n"
        except OSError:
            hidden += 1
print(json.dumps([shown, hidden]))
"""

needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="root, which alone may act as another user"
)


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    """A program that another user of this machine runs."""
    return subprocess.run(
        command,
        user=NOBODY.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def python_of_nobody(script: str, *arguments: str) -> Any:
    """What a script of theirs says."""
    become = (BECOME + script, str(NOBODY.pw_uid), str(NOBODY.pw_gid))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", *become, *arguments],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, and so the file in it is on its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def waiting(prefect_server: Runtime) -> AsyncIterator[tuple[str, str]]:
    """A deployment, and a run of it that is paused."""
    async with prefect_server.client() as http:

        async def made(path: str, **given: Any) -> str:
            return (await http.post(path, json=given)).raise_for_status().json()["id"]

        flow = await made("/flows/", name=f"flow-{uuid.uuid4()}")
        deployment = await made("/deployments/", name="prod", flow_id=flow, entrypoint="a.b")
        run = await made(f"/deployments/{deployment}/create_flow_run", state={"type": "PAUSED"})
        yield deployment, run
        await http.delete(f"/flows/{flow}")


# ---------------------------------------------------------------- the string


@needs_another_user
@pytest.mark.attack(by=ANOTHER, tries="reading the file that keeps the auth string", sample=True)
def test_the_auth_string_is_read_by_its_owner_only(open_folder: Path) -> None:
    secret = auth.auth_string(open_folder)
    assert as_nobody("ls", str(open_folder)).stdout.split() == [auth.FILE]
    read = as_nobody("cat", str(open_folder / auth.FILE))
    assert (read.returncode != 0, secret in read.stdout) == (True, False), read


PLANTED = "airlock:known-to-them"


def a_link(file: Path) -> None:
    file.with_name("theirs").write_text(PLANTED, "utf-8")
    file.with_name("theirs").chmod(0o600)
    file.symlink_to("theirs")


def a_file_of_theirs(file: Path) -> None:
    file.write_text(PLANTED, "utf-8")
    file.chmod(0o600)
    os.chown(file, NOBODY.pw_uid, -1)


def a_file_that_others_read(file: Path) -> None:
    file.write_text(PLANTED, "utf-8")
    file.chmod(0o640)


def a_pipe(file: Path) -> None:
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize("planted", [a_link, a_file_that_others_read, a_pipe, a_file_of_theirs])
@pytest.mark.attack(
    by=ANOTHER, tries="putting an auth string of their own in its place", sample=True
)
def test_an_auth_string_that_others_may_know_is_not_used(planted: Any, open_folder: Path) -> None:
    if planted is a_file_of_theirs and os.geteuid() != 0:
        pytest.skip("root, which alone may give a file away")
    planted(open_folder / auth.FILE)
    with pytest.raises(Refused, match="airlock ui --rotate") as refused:
        auth.auth_string(open_folder)
    assert PLANTED not in str(refused.value)
    auth.rotate(open_folder)
    assert auth.auth_string(open_folder) != PLANTED


@needs_another_user
@pytest.mark.attack(by=ANOTHER, tries="`ps`, and what /proc shows of each process", sample=True)
def test_no_process_shows_the_auth_string(prefect_server: Runtime) -> None:
    shown, hidden = python_of_nobody(PROCESSES)
    assert "flows.runtime.server" in shown, "the server is seen"
    assert hidden, "and its environment is not"
    secret = prefect_server.auth_string
    assert secret in psutil.Process(prefect_server.server_pid).environ().values()
    for word in (secret, secret.partition(":")[2], auth.encoded(secret)):
        assert word not in shown


@pytest.mark.attack(by=ANOTHER, tries="listening where a killed server listened", sample=True)
async def test_what_listens_in_a_dead_servers_place_is_told_nothing(open_folder: Path) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(10_000))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"3.8.8"')
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as theirs:
        port = theirs.sockets[0].getsockname()[1]
        # As a server leaves it that was killed together with whoever started it.
        (open_folder / "lock").touch()
        (open_folder / "api-url").write_text(f"http://127.0.0.1:{port}/api\n", "utf-8")
        assert await running(open_folder) is None
    assert heard == b""


# ---------------------------------------------------------------- the API


@needs_another_user
@pytest.mark.attack(by=ANOTHER, tries="listing deployments, starting and approving", sample=True)
async def test_who_lacks_the_auth_string_lists_starts_and_approves_nothing(
    prefect_server: Runtime, waiting: tuple[str, str]
) -> None:
    deployment, run = waiting
    calls = [
        ("GET", "/admin/settings", None),
        ("GET", f"/deployments/{deployment}", None),
        ("POST", "/deployments/filter", {}),
        ("POST", f"/deployments/{deployment}/create_flow_run", {}),
        ("POST", f"/flow_runs/{run}/resume", {"run_input": {"decision": "approve"}}),
        ("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED"}, "force": True}),
        ("DELETE", f"/deployments/{deployment}", None),
    ]
    told = await asyncio.to_thread(
        python_of_nobody, CALLS, prefect_server.api_url, json.dumps(calls)
    )
    async with prefect_server.client() as http:
        wanted = {"deployments": {"id": {"any_": [deployment]}}}
        runs = (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()
    assert [(each["id"], each["state_type"]) for each in runs] == [(run, "PAUSED")]
    assert set(told) <= SHUT, told


@pytest.mark.parametrize("path", ["/events/out", "/logs/out", "/events/in"])
@pytest.mark.attack(
    by=ANOTHER, tries="Prefect's web sockets, with a string of their own", sample=True
)
async def test_a_web_socket_without_the_auth_string_is_closed(
    prefect_server: Runtime, path: str
) -> None:
    from websockets import ConnectionClosed
    from websockets.asyncio.client import connect

    address = prefect_server.api_url.replace("http", "ws", 1) + path
    async with connect(address, subprotocols=["prefect"], proxy=None) as socket:  # pyright: ignore[reportArgumentType]
        await socket.send(json.dumps({"type": "auth", "token": "airlock:guessed"}))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 60)


@pytest.mark.attack(by=ANOTHER, tries="a server that is started without an auth string")
async def test_a_server_without_an_auth_string_does_not_start() -> None:
    own = {name: value for name, value in os.environ.items() if name != auth.VARIABLE}
    for given in ({}, {auth.VARIABLE: ""}):
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows.runtime.server", "--port", "0"),
            env={**own, **given},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await started.communicate()
        assert started.returncode == os.EX_CONFIG
        assert f"{auth.VARIABLE} is not set" in said.decode()


@pytest.mark.attack(by=ANOTHER, tries="a worker that is started without an auth string")
async def test_a_worker_without_an_auth_string_does_not_start() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "flows.worker"), env=own, stderr=asyncio.subprocess.PIPE
    )
    _, said = await started.communicate()
    assert started.returncode == os.EX_CONFIG
    assert "PREFECT_API_AUTH_STRING is not set" in said.decode()


# ---------------------------------------------------------------- names


def called(runtime: Runtime, host: str, secret: str | None = None) -> httpx.AsyncClient:
    """A client that calls the server by that name."""
    headers = {"Host": host, **auth.header(secret)}
    return httpx.AsyncClient(base_url=runtime.ui_url, headers=headers, trust_env=False, timeout=60)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/csrf-token?client=x"),
        ("GET", "/api/admin/version"),
        ("POST", "/api/deployments/filter"),
        ("POST", "/api/health"),
        ("OPTIONS", "/api/deployments/filter"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", ticket.PATH),
    ],
)
@pytest.mark.attack(by=SITE, tries="using the API by that name (DNS rebinding)", sample=True)
async def test_by_a_foreign_name_nothing_but_health_and_the_uis_files_is_answered(
    prefect_server: Runtime, method: str, path: str
) -> None:
    async with called(prefect_server, FOREIGN) as site:
        assert (await site.request(method, path)).status_code == MISDIRECTED
        assert (await site.get("/api/health")).is_success
        assert "<html" in (await site.get("/")).text
    async with called(prefect_server, FOREIGN, prefect_server.auth_string) as known:
        assert (await known.request(method, path)).status_code != MISDIRECTED


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:4200", True),
        ("127.0.0.1:9000", True),
        ("[::1]", True),
        ("[::1]:4200", True),
        ("localhost.rebound.example", False),
        ("127.0.0.1.rebound.example:4200", False),
        ("[::1].rebound.example", False),
        ("rebound.example:127.0.0.1", False),
        ("", False),
    ],
)
@pytest.mark.attack(by=SITE, tries="names that look like ours", sample=True)
async def test_only_our_names_and_ip_addresses_are_known(
    prefect_server: Runtime, name: str, is_ours: bool
) -> None:
    async with called(prefect_server, name) as site:
        answer = await site.get("/api/admin/version")
    assert answer.status_code == (httpx.codes.UNAUTHORIZED if is_ours else MISDIRECTED)


@pytest.mark.attack(by=SITE, tries="Prefect's web sockets by that name", sample=True)
async def test_by_a_foreign_name_no_web_socket_is_opened(prefect_server: Runtime) -> None:
    from websockets import InvalidStatus
    from websockets.asyncio.client import connect

    port = httpx.URL(prefect_server.api_url).port
    address, where = f"ws://{FOREIGN}/api/events/out", {"host": "127.0.0.1", "port": port}
    with pytest.raises(InvalidStatus, match="403"):
        await connect(address, subprotocols=["prefect"], proxy=None, **where)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- links


async def exchanged(runtime: Runtime, given: str) -> httpx.Response:
    async with called(runtime, httpx.URL(runtime.ui_url).netloc.decode()) as browser:
        return await browser.post(ticket.PATH, content=given)


@pytest.mark.attack(by=OLD_LINK, tries="opening the link of `make serve` again", sample=True)
async def test_a_link_opens_the_ui_once(prefect_server: Runtime) -> None:
    link = prefect_server.ui_link()
    assert prefect_server.auth_string not in link
    assert auth.encoded(prefect_server.auth_string) not in link
    address, _, given = link.partition("#")
    assert address == f"{prefect_server.ui_url}{ticket.PATH}"
    first, second = [await exchanged(prefect_server, given) for _ in range(2)]
    assert first.text == auth.encoded(prefect_server.auth_string)
    assert first.headers["cache-control"] == "no-store"
    assert second.status_code == httpx.codes.FORBIDDEN
    assert "airlock ui" in second.text


def old(runtime: Runtime) -> str:
    return ticket.issue(runtime.auth_string, time.time() - ticket.LASTS_S - 1)


def forged(_: Runtime) -> str:
    return ticket.issue(f"airlock:{secrets.token_urlsafe(32)}", time.time())


def lengthened(runtime: Runtime) -> str:
    ends, _, rest = old(runtime).partition("-")
    return f"{int(ends) + 10_000}-{rest}"


def nothing(_: Runtime) -> str:
    return ""


@pytest.mark.parametrize("given", [old, forged, lengthened, nothing])
@pytest.mark.attack(by=OLD_LINK, tries="a link that has expired, or one of their own", sample=True)
async def test_a_link_that_is_not_good_any_more_or_never_was_opens_nothing(
    prefect_server: Runtime, given: Any
) -> None:
    answer = await exchanged(prefect_server, given(prefect_server))
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert prefect_server.auth_string not in answer.text
