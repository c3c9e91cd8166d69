"""What listens while `make serve` and a deploy run, and whom it lets in."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airlock import server
from flows.runtime import auth, published_api_url
from tests.attacks import listeners
from tests.attacks.listeners import Listener
from tests.attacks.nobody import Nobody, as_nobody, nobody
from tests.stage import CHECKOUT, Stage, receiving, standing

START_S, DEPLOY_S = 90, 240
HTTP = "GET /api/deployments/of-others HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n"
# Asks PostgreSQL for TLS, which it answers with one letter before any password.
# https://www.postgresql.org/docs/current/protocol-message-formats.html
POSTGRES = bytes.fromhex("0000000804d2162f")


@pytest.fixture
async def stage(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Production at 009, release v1 serving; the rehearsal starts releases, too."""
    async with (
        receiving() as webhook,
        standing(
            tmp_path / "project",
            pg=pg,
            base=base_009,
            repository=service_repository,
            webhook=webhook,
            patch=monkeypatch,
        ) as made,
    ):
        made.try_releases()
        monkeypatch.setenv(auth.VARIABLE, f"airlock:{secrets.token_urlsafe(16)}")
        yield made


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[tuple[Process, int]]:
    """`make serve`, and the port of its server."""
    serve = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.serve"), cwd=CHECKOUT, stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_S):
            while (url := published_api_url(stage.target.state_dir / "prefect")) is None:
                assert serve.returncode is None
                await asyncio.sleep(0.1)
        yield serve, urlsplit(url).port or 0
    finally:
        # Again: what runs is not waited for.
        for _ in range(2):
            if serve.returncode is None:
                serve.terminate()
                await asyncio.sleep(1)
        await serve.wait()


class Watch:
    """What listened, whose it was, and what it answered to nobody when it was first seen."""

    def __init__(self, other: Nobody) -> None:
        self._other = other
        self.holders: dict[Listener, set[str]] = defaultdict(set)
        self.answers: dict[Listener, tuple[bytes | None, ...]] = {}
        self.modes: dict[Listener, list[int]] = {}

    async def look(self, pids: set[int], roles: Mapping[str, str]) -> None:
        for pid in pids:
            for each in listeners.of([pid]):
                said = listeners.command(pid)
                self.holders[each].add(next((r for w, r in roles.items() if w in said), said))
                if each not in self.answers:
                    await self._try(each)

    async def _try(self, found: Listener) -> None:
        if found.kind == "unix" and not found.address.startswith("@"):
            self.modes[found] = listeners.modes(Path(found.address))
        address = found.address if found.kind == "unix" else (found.address, found.port)
        http = HTTP.format(found.port).encode()
        self.answers[found] = tuple(
            [await self._other.answer(address, said) for said in (http, POSTGRES)]
        )

    def of(self, *holders: str) -> set[Listener]:
        return {each for each, whose in self.holders.items() if whose == set(holders)}


@as_nobody
@pytest.mark.attack(by="another user of this machine", tries="everything that listens in a deploy")
async def test_what_listens_is_known_and_asks_whoever_comes(stage: Stage) -> None:
    service = f"AIRLOCK_SERVICE={stage.target.service_dir.resolve()}"
    roles = {
        "/postgres ": "clone",
        # Whoever starts the server may have opened its socket.
        **dict.fromkeys(("server start", "flows.runtime.server", "flows.serve"), "server"),
        "worker": "worker",
        "start_server.py": "service",
        "-m flows deploy": "deploy",
    }
    async with nobody() as other, served(stage) as (serve, port):
        watch = Watch(other)
        deploy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "airlock", "deploy", "prod", "--release", "v2"),
            cwd=stage.root,
            stdout=subprocess.DEVNULL,
        )
        async with asyncio.timeout(DEPLOY_S):
            while deploy.returncode is None:
                found = await asyncio.to_thread(listeners.family, [serve.pid, deploy.pid], service)
                await watch.look(found, roles)
                await asyncio.sleep(0.02)
        assert deploy.returncode == 0

    seen = watch.holders
    assert {each.kind for each in seen} == {"tcp", "unix"}
    assert all(each.is_loopback for each in seen if each.kind == "tcp")
    # Prefect's server wants its auth string, its worker the token of a run.
    assert watch.of("server") == {Listener("tcp", "127.0.0.1", port)}
    (http, _) = watch.answers[Listener("tcp", "127.0.0.1", port)]
    assert (http or b"").startswith(b"HTTP/1.1 401 ")
    channels = watch.of("worker")
    assert len(channels) <= 1
    assert {watch.answers[each] for each in channels} <= {(b"", b"")}
    # The clone: on a Unix socket that only we reach, and a door that lets the releases in.
    sockets = watch.of("clone")
    assert sockets
    for each in sockets:
        assert each.kind == "unix", each
        assert not each.address.startswith("@")
        assert watch.modes[each][0] == 0o700
        assert watch.answers[each] == (None, None)
    # All others: the service's port, those of the instances that are tried, and doors to the clone,
    # which say nothing to nobody. PostgreSQL itself would answer, if only that it has no TLS.
    others = seen.keys() - sockets - channels - {Listener("tcp", "127.0.0.1", port)}
    assert Listener("tcp", "127.0.0.1", stage.port) in others
    assert {whose for each in others for whose in seen[each]} == {"service", "deploy"}
    answers = [watch.answers[each] for each in others]
    assert (b"", b"") in answers
    spoken = {answer for both in answers for answer in both if answer}
    assert {answer[:9] for answer in spoken} == {b"HTTP/1.1 "}
