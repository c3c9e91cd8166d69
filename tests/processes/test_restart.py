from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import pytest

from airlock import record, service
from airlock.errors import Broken, Refused
from airlock.service import Instance, Restart, process, sockets, starting, table
from tests.patience import PATIENCE_S, until

from .conftest import STUB, Stage

STRANGER = (
    "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); {then}"
)


async def test_the_first_start_serves_and_its_instance_survives_a_round_trip_as_json(
    stage: Stage,
) -> None:
    done = await stage.restart("deploy-1-forward")
    assert (done.method, done.old, done.new.token) == ("first start", None, "deploy-1-forward")
    assert record.load(Restart, record.dump(done)) == done
    assert record.load(Restart, record.dump(done)).new.is_alive
    assert (await stage.who())["instance"] == "deploy-1-forward"


async def test_an_instance_is_no_child_of_ours_and_leads_a_session_of_its_own(stage: Stage) -> None:
    new = (await stage.restart("one")).new
    found = psutil.Process(new.pid)
    assert os.getpid() not in [parent.pid for parent in found.parents()]
    assert os.getsid(new.pid) == new.pid
    assert {"0", "1", "2"} == {fd.name for fd in (table.PROC / str(new.pid) / "fd").iterdir()} & {
        "0",
        "1",
        "2",
    }


@dataclass
class Load:
    """Clients that ask all the time, each request once, and what they met."""

    port: int
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def of(self, *, new: int, kept: int) -> AsyncIterator[None]:
        """So many that connect for each request, and that keep their connection until told."""
        over = asyncio.Event()
        clients = [
            asyncio.create_task(self._client(over, keeps=number >= new))
            for number in range(new + kept)
        ]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*clients)

    async def _client(self, over: asyncio.Event, *, keeps: bool) -> None:
        writer = None
        while not over.is_set():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if writer is None:
                        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    head, body = await _answer(reader, writer, keeps=keeps)
                self.answers[json.loads(body)["instance"]] += 1
                closes = not keeps or b"connection: close" in head.lower()
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.failures.append(f"{'kept' if keeps else 'new'}: {error!r}")
                closes = True
            if closes and writer is not None:
                writer.close()
                writer = None
            await asyncio.sleep(0.01)
        if writer is not None:
            writer.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keeps: bool
) -> tuple[bytes, bytes]:
    """Head and body of the answer to one more request."""
    connection = "keep-alive" if keeps else "close"
    writer.write(f"GET /health HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None
    return head, await reader.readexactly(int(length[1]))


async def test_no_request_of_24_clients_fails_during_a_restart_whoever_keeps_a_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost/nothing")
    stage.serve_as_the_tracker()
    load = Load(port=stage.port)
    await stage.restart("one")
    async with load.of(new=12, kept=12):
        await asyncio.sleep(0.3)
        restarted = await stage.restart("two")
        await asyncio.sleep(0.3)
    assert restarted.method == "inherited socket"
    assert load.failures == []
    assert set(load.answers) == {"one", "two"}


async def test_the_old_instance_ends_only_after_the_new_one_answers(stage: Stage) -> None:
    first = await stage.restart("one")
    second = await stage.restart("two", old=first.new)
    assert second.old is not None
    assert second.old.identity == first.new.identity
    assert not first.new.is_alive
    assert "drained" in second.note
    assert await stage.names(5) == {"two"}


@pytest.mark.parametrize("behaviour", ["", "only_public", "only_public,mute"])
async def test_a_service_that_ignores_the_probe_socket_is_known_by_who_accepts(
    stage: Stage, behaviour: str
) -> None:
    await stage.restart("one", behaviour)
    restarted = await stage.restart("two", f"{behaviour},late:0.2")
    assert restarted.method == "inherited socket"
    assert (await stage.who())["pid"] == str(restarted.new.pid)


async def test_a_service_started_by_hand_is_found_and_taken_over(stage: Stage) -> None:
    by_hand = await stage.start_by_hand()
    found = await service.find(stage.target)
    assert found is not None
    assert (found.pid, found.token) == (by_hand.pid, None)
    # Late enough that a gap of a busy machine is less.
    restarted = await stage.restart("one", "late:3")
    assert restarted.method == "inherited socket"
    assert restarted.old is not None
    assert restarted.old.pid == by_hand.pid
    assert await asyncio.wait_for(by_hand.wait(), PATIENCE_S) == 0
    assert restarted.gap_s < restarted.ready_s


async def test_an_unmodified_service_that_binds_its_own_port_is_stopped_first_and_the_gap_measured(
    stage: Stage,
) -> None:
    await stage.start_by_hand("own_port")
    for token in ("one", "two"):
        restarted = await stage.restart(token, "own_port,late:0.3")
        assert restarted.method == "stop then start"
        assert restarted.gap_s > 0.3
        assert (await stage.who())["instance"] == token


async def test_a_service_that_shares_its_port_overlaps(stage: Stage) -> None:
    stage.options["inherit_socket"] = False
    await stage.start_by_hand("shares_port")
    restarted = await stage.restart("one", "shares_port")
    assert restarted.method == "reuseport overlap"
    assert await stage.names(5) == {"one"}


async def test_a_service_that_shares_its_port_is_never_left_beside_a_socket_nobody_serves(
    stage: Stage,
) -> None:
    await stage.start_by_hand("shares_port")
    restarted = await stage.restart("one", "shares_port")
    assert restarted.method == "reuseport overlap"
    assert len(table.listening("127.0.0.1", stage.port)) == 1


async def test_where_the_kernel_hands_no_socket_over_a_shared_port_is_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.restart("one")

    def forbidden(pid: int, descriptor: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(table, "take_socket", forbidden)
    restarted = await stage.restart("two", "late:3")
    assert restarted.method == "reuseport overlap"
    assert restarted.gap_s < restarted.ready_s
    assert await stage.names(5) == {"two"}


async def test_a_stranger_on_the_port_is_refused_by_pid_and_command(stage: Stage) -> None:
    script = STRANGER.format(port=stage.port, then="time.sleep(600)")
    stranger = await asyncio.create_subprocess_exec("python3", "-c", script)
    stage.by_hand.append(stranger)
    await until(lambda: table.listening("127.0.0.1", stage.port))
    with pytest.raises(Refused, match=rf"taken by pid {stranger.pid} \(python3 -c"):
        await stage.restart("one")
    assert stranger.returncode is None


async def test_the_same_command_in_another_folder_is_a_stranger(stage: Stage) -> None:
    await stage.start_by_hand()
    elsewhere = stage.folder / "elsewhere"
    elsewhere.mkdir()
    stage.options["directory"] = elsewhere
    with pytest.raises(Refused, match="is taken by pid"):
        await service.find(stage.target)


@pytest.mark.parametrize(
    ("behaviour", "ready_s", "says"),
    [
        # Time enough for its first answer.
        ("never_ready", 5, "HTTP 503 instead of 2xx"),
        ("hangs", 0.8, "not ready within"),
        ("wrong_token", 5, "as instance 'somebody-else'"),
        # Not waited for.
        ("exits", 3600, "ended .* after its start"),
        ("late:0.2,dies_after:0", 3600, "ended .* after its start"),
    ],
)
async def test_a_new_instance_that_does_not_become_ready_is_ended_and_the_old_one_serves(
    stage: Stage, behaviour: str, ready_s: float, says: str
) -> None:
    first = await stage.restart("one")
    stage.options["ready_s"] = ready_s
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Broken, match=f"(?s){says}.*pid {first.new.pid}.* still serves"):
            await stage.restart("two", behaviour, old=first.new)
    assert await stage.names(5) == {"one"}
    assert [i.token for i in process.running(stage.target)] == ["one"]


async def test_the_last_lines_of_a_dead_instance_are_in_the_error_without_its_secrets(
    stage: Stage,
) -> None:
    with pytest.raises(Broken) as caught:
        await stage.restart("one", "exits")
    assert "cannot start: postgresql://***@db/x is not there" in str(caught.value)
    assert "Nothing serves now" in str(caught.value)


async def test_a_command_that_does_not_exist_is_named(stage: Stage) -> None:
    stage.options["command"] = ("no-such-program",)
    with pytest.raises(Broken, match="could not be started: no-such-program"):
        await stage.restart("one")


async def test_when_stopping_first_was_needed_and_the_new_one_fails_the_old_release_comes_back(
    stage: Stage,
) -> None:
    await stage.start_by_hand("own_port")
    wanted = stage.folder / "bad"
    wanted.mkdir()
    (wanted / "start_server.py").write_text("raise SystemExit('no such column')\n")
    stage.behave("own_port")
    release = service.Release(ref="v2", commit=None, directory=wanted)
    with pytest.raises(Broken, match=r"(?s)no such column.*started again \(pid"):
        await service.restart(stage.target, release, old=None, token="two")
    assert (await stage.who())["instance"] == "two-back"


async def test_a_service_that_ignores_term_is_killed_with_its_children(stage: Stage) -> None:
    stage.options["drain_s"] = 0.4
    first = await stage.restart("one", "ignores_term,forks")
    children = psutil.Process(first.new.pid).children()
    assert len(children) == 1
    restarted = await stage.restart("two")
    assert "killed after" in restarted.note
    assert not first.new.is_alive
    assert not [child.pid for child in children if is_alive(child.pid)]


async def test_children_that_outlive_a_drained_parent_are_ended_too(stage: Stage) -> None:
    stage.options["drain_s"] = 0.4
    first = await stage.restart("one", "forks")
    child = psutil.Process(first.new.pid).children()[0]
    await service.stop(stage.target, first.new)
    assert not is_alive(child.pid)


def is_alive(pid: int) -> bool:
    found = table.read(pid)
    return found is not None and found.is_alive


async def test_a_restart_with_the_same_token_finds_what_an_interrupted_one_started(
    stage: Stage,
) -> None:
    first = await stage.restart("one")
    # Interrupted between the start of the new instance and the end of the old one.
    offered = sockets.inherit(service.configured(stage.target), first.new)
    assert offered is not None
    await starting.start(stage.target, stage.release(), token="two", sockets=offered[0])
    offered[0].close()
    again = await stage.restart("two", old=first.new)
    assert "earlier try" in again.note
    assert not first.new.is_alive
    once_more = await stage.restart("two", old=first.new)
    assert once_more.new.identity == again.new.identity
    assert len(process.running(stage.target)) == 1


async def test_a_cancelled_restart_leaves_no_half_started_instance(stage: Stage) -> None:
    await stage.restart("one")
    restarting = asyncio.create_task(stage.restart("two", "late:5"))
    await asyncio.sleep(0.5)
    restarting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restarting
    assert [i.token for i in process.running(stage.target)] == ["one"]


async def test_stopping_spares_another_process_under_the_same_pid(stage: Stage) -> None:
    new = (await stage.restart("one")).new
    reused = Instance(
        pid=new.pid,
        create_time=new.create_time - 1,
        boot_id=new.boot_id,
        token="one",
        release=new.release,
        started_at=new.started_at,
        directory=new.directory,
    )
    assert not reused.is_alive
    await service.stop(stage.target, reused)
    assert new.is_alive


def test_a_zombie_is_not_alive() -> None:
    # A child that nobody has waited for yet.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    while (found := table.read(pid)) is not None and found.is_alive:
        time.sleep(0.01)
    assert found is not None
    assert found.state == "Z"
    os.waitpid(pid, 0)


async def test_the_environment_holds_what_is_named_and_nothing_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEALS_API_KEY", "s3cret-value")
    monkeypatch.setenv("UNNAMED_KEY", "other-value")
    stage.options["env"] = ("DEALS_API_KEY",)
    new = (await stage.restart("one")).new
    seen = table.environ(new.pid)
    assert seen["DEALS_API_KEY"] == "s3cret-value"
    assert "UNNAMED_KEY" not in seen
    assert seen["PORT"] == str(stage.port)
    assert "s3cret" not in repr(new) + record.dump(new) + " ".join(table.command_line(new.pid))


async def test_logs_are_for_nobody_else_to_read(stage: Stage) -> None:
    new = (await stage.restart("one")).new
    assert stat.S_IMODE(new.logs[0].path.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.logs[0].path.parent.stat().st_mode) == 0o700
    assert STUB.exists()


@pytest.mark.parametrize(
    ("bound", "asked"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_who_listens_and_who_is_connected_is_told_apart_on_both_kinds_of_address(
    bound: str, asked: str
) -> None:
    kind = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=kind, dualstack_ipv6=bound == "::") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((asked, port)) as client:
            ends = client.getsockname()[:2], client.getpeername()[:2]
            assert table.accepted(*ends) is None
            with listener.accept()[0] as server:
                assert table.accepted(*ends) == os.fstat(server.fileno()).st_ino
            assert table.listening(asked, port) == {os.fstat(listener.fileno()).st_ino}
            assert table.listening(asked, ends[0][1]) == set()
