"""A second instance for the rehearsal: it outlives no runner, and takes nothing of production's."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from airlock.errors import Refused
from airlock.pairing import Cast, Pair, trying
from airlock.pairing.relay import relay
from airlock.plan import Plan
from airlock.request import Gate
from airlock.service import Instance, process, table
from airlock.snapshot import Clone
from tests import own
from tests.patience import until
from tests.processes.conftest import Stage

NOTHING = Plan(target="test", head=None, migrations=(), schema_before="")


async def play(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, database_url: str, skip: tuple[Gate, ...] = ()
) -> tuple[Pair, ...]:
    """The stub's only release on a clone of a dev server: there is no database behind it."""
    monkeypatch.setenv("NO_DATABASE_URL", database_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DEV_URL", "postgresql://dev@localhost:1/clone")
    target = stage.target
    target = target.model_copy(
        update={
            "clone": target.clone.model_copy(update={"dev_url_env": "DEV_URL"}),
            "service": target.service.model_copy(update={"env": ("DATABASE_URL",)}),
        }
    )
    (target.clones_dir / "c").mkdir(parents=True)
    clone = Clone(
        url=os.environ["DEV_URL"],
        superuser_url=None,
        name="c",
        database="tracker",
        provider="logical",
        server_version="18",
        seconds=0,
    )

    async def undo(_: object) -> None:
        raise AssertionError("there is nothing to undo")

    cast = Cast(new=stage.release(), skip=skip)
    tried = await trying.play(target, clone, NOTHING, cast, undo, deploy=7)
    assert tried.not_tried == ""
    assert left_over(stage) == []
    return tried.pairs


def left_over(stage: Stage) -> list[int]:
    """Processes in the service's folder, or with its log."""
    return list(own.processes(stage.folder))


URL = "postgresql://tracker@localhost:1/tracker"

# What an instance does otherwise than the reference service, and what is seen of it.
BEHAVIOURS = {
    "well": ("", ""),
    "binds its own port": ("own_port", ""),
    "with children that hear no TERM": ("forks,ignores_term", ""),
    "leaves a daemon behind": ("leaves_a_daemon", ""),
    "ends": ("exits", "it ended"),
    "is never ready": ("never_ready", "it was not ready within 5 s; last answer: HTTP 503"),
    "dies of a question": ("dies_of_deals", "it ended"),
}


@pytest.mark.parametrize(("behaviour", "said"), BEHAVIOURS.values(), ids=BEHAVIOURS.keys())
async def test_an_instance_is_tried_and_ended_with_all_it_started(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, behaviour: str, said: str
):
    if "never" in behaviour:
        # Time enough for its first answer.
        stage.options["ready_s"] = 5
    stage.health["smoke"] = [{"path": "/deals"}]
    stage.behave(behaviour)
    (pair,) = await play(stage, monkeypatch, URL)
    assert pair.failure.startswith(said), pair.failure
    assert bool(pair.failure) == bool(said)
    assert "hunter22" not in pair.failure
    if not said:
        assert [each.detail for each in pair.endpoints] == ["HTTP 200"]


async def test_it_is_never_taken_for_productions_instance(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    stage.behave("late:0.3")
    found = list[Instance]()
    trying_it = asyncio.create_task(play(stage, monkeypatch, URL))
    while not trying_it.done():
        found += process.running(stage.target)
        await asyncio.sleep(0.02)
    (pair,) = await trying_it
    assert (found, pair.failure) == ([], "")


async def test_what_is_left_out_on_request_is_not_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    stage.health["smoke"] = [{"path": "/nothing"}]
    stage.behave("log_errors")
    (pair,) = await play(stage, monkeypatch, URL, skip=("smoke", "log_errors"))
    assert (pair.endpoints, pair.faults) == ((), {})


async def test_what_it_logs_and_answers_wrongly_is_seen(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    stage.health["smoke"] = [{"path": "/nothing?key=secret"}]
    stage.behave("log_errors")
    (pair,) = await play(stage, monkeypatch, URL)
    assert pair.faults == {
        "GET /nothing": "GET /nothing answered HTTP 404 instead of 200: {}",
        "log": "its log has an error: ERROR the table deals has no column halted",
    }


async def test_one_that_takes_productions_port_is_ended_and_the_running_one_serves_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    serving = (await stage.restart("one", "shares_port")).new
    code = (stage.folder / "app" / "start_server.py").read_text()
    # As a service does that has its port in a file of its own.
    code = code.replace('int(os.environ["PORT"])', str(stage.port))
    (stage.folder / "app" / "start_server.py").write_text(code)
    stage.options["inherit_socket"] = False
    with pytest.raises(Refused, match=f"listened on production's port {stage.port}, and was ended"):
        await play(stage, monkeypatch, URL)
    assert serving.is_alive
    assert await stage.names(5) == {"one"}


async def test_one_that_connects_to_productions_server_is_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as production:
        port = production.getsockname()[1]
        path = stage.folder / "app" / "start_server.py"
        dials = f'reached = socket.create_connection(("127.0.0.1", {port}))\nasyncio.run(main())'
        path.write_text(path.read_text().replace("asyncio.run(main())", dials))
        said = f"connected to production's database server, 127.0.0.1 port {port}"
        with pytest.raises(Refused, match=said):
            await play(stage, monkeypatch, f"postgresql://tracker@localhost:{port}/tracker")


async def test_a_command_that_names_productions_port_is_not_started(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    stage.options["command"] = ("python3", "start_server.py", f"--bind=127.0.0.1:{stage.port}")
    tried = await trying.play(
        stage.target,
        None,
        NOTHING,
        Cast(new=stage.release()),
        None,
        deploy=7,  # type: ignore[arg-type]
    )
    assert f"names port {stage.port}" in tried.not_tried
    assert tried.pairs == ()


RUNNER = """
import asyncio, os, sys
from pathlib import Path
from airlock.service import starting

async def main():
    folder = Path(sys.argv[1])
    command = starting.launch_command(
        ("python3", "start_server.py"), fds=(), log_file=folder / "log", directory=folder / "app",
        tether=True,
    )
    environ = {**os.environ, "BEHAVIOUR": "forks,ignores_term", "PORT": sys.argv[2]}
    async with starting.tethered(command, environ, ()) as pid:
        print(pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["runner", "tether"])
async def test_when_its_runner_is_killed_it_ends_with_all_it_started(stage: Stage, victim: str):
    runner = subprocess.Popen(  # noqa: ASYNC220 – it is killed from outside, and waited for
        [sys.executable, "-c", textwrap.dedent(RUNNER), str(stage.folder), str(stage.port)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert runner.stdout
        pid = int(await asyncio.to_thread(runner.stdout.readline))
        found = table.read(pid)
        assert found
        await stage.until_good()
        assert len(table.family(pid, found.create_time, whole_session=True)) == 2
        os.kill(runner.pid if victim == "runner" else found.parent, signal.SIGKILL)
        if victim == "tether":
            # Of the tether's own end only the service itself hears.
            await until(lambda: table.read(pid) is None)
            return
        await until(lambda: left_over(stage) == [])
    finally:
        runner.kill()
        runner.wait()
        runner.stdout.close()


# ---------------------------------------------------------------- the way to the clone

ASK = """
import socket, sys
asking = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
asking.sendall(b"hello")
print(asking.recv(100).decode())
"""


@pytest.mark.parametrize(
    ("user", "answer"),
    [
        (None, "hello back"),
        pytest.param(
            "nobody", "", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
        ),
    ],
)
async def test_the_relay_lets_only_this_user_through(tmp_path: Path, user: str | None, answer: str):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100) + b" back")
        await writer.drain()
        await reader.read()
        writer.close()

    python = sys.executable if user is None else "/usr/bin/python3"
    async with (
        await asyncio.start_unix_server(echo, tmp_path / "s"),
        relay(tmp_path / "s") as found,
    ):
        asking = await asyncio.create_subprocess_exec(
            *(python, "-I", "-S", "-c", ASK, str(found.port)),
            user=user,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
        )
        said, _ = await asking.communicate()
    assert said.decode().strip() == answer
    assert found.connections == (user is None)
