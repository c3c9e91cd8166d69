"""A service in a folder of its own, its target, gone with its test."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airlock import service
from airlock.service import Instance, Release, Restart
from airlock.settings import HealthSettings, ServiceSettings, Target
from tests import own
from tests.patience import PATIENCE_S, until

STUB = Path(__file__).with_name("stub_service.py")
TRACKER = Path(__file__).parents[2] / "examples" / "ma_tracker" / "python-service"

# The tracker's own routes without its database.
ROUTES = """
import json

def build(database_url, *, release, instance):
    body = json.dumps({"status": "ok", "instance": instance}).encode()
    length = (b"content-length", str(len(body)).encode())

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(b"content-type", b"application/json"), length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
"""


@dataclass
class Stage:
    """One target with a stub service that was not started yet."""

    folder: Path
    port: int
    options: dict[str, object] = field(default_factory=dict)
    health: dict[str, object] = field(default_factory=dict)
    by_hand: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def target(self) -> Target:
        options: dict[str, object] = {
            "directory": self.folder / "app",
            "command": ("python3", "start_server.py"),
            "port": self.port,
            "env_file": self.folder / "app.env",
            "ready_s": PATIENCE_S,
            "drain_s": PATIENCE_S,
            **self.options,
        }
        health: dict[str, object] = {
            "consecutive": 3,
            "interval_ms": 20,
            "timeout_s": 30,
            "bake_s": 0.3,
            "deadline_s": PATIENCE_S,
            **self.health,
        }
        return Target(
            name="test",
            root=self.folder,
            state_dir=self.folder / ".airlock",
            migrations_dir=self.folder / "migrations",
            database_url_env="NO_DATABASE_URL",
            service=ServiceSettings.model_validate(options),
            health=HealthSettings.model_validate(health),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/health"

    def behave(self, behaviour: str = "") -> None:
        """How instances started from now on behave."""
        (self.folder / "app.env").write_text(f"BEHAVIOUR={behaviour}\n")

    def serve_as_the_tracker(self) -> None:
        """The tracker's sockets and its way to drain, instead of the stub's."""
        for name in ("start_server.py", "draining.py"):
            shutil.copy(TRACKER / name, self.folder / "app")
        (self.folder / "app" / "routes.py").write_text(ROUTES)
        # Asked for, and never used.
        self.options["env"] = ("DATABASE_URL",)

    def release(self) -> Release:
        return Release(ref=None, commit=None, directory=self.folder / "app")

    async def restart(
        self, token: str, behaviour: str = "", *, old: Instance | None = None
    ) -> Restart:
        self.behave(behaviour)
        return await service.restart(self.target, self.release(), old=old, token=token)

    async def start_by_hand(self, behaviour: str = "") -> asyncio.subprocess.Process:
        """As a person does it: in the folder, in the background, with PORT set."""
        started = await asyncio.create_subprocess_exec(
            *("python3", "start_server.py"),
            cwd=self.folder / "app",
            env={**os.environ, "PORT": str(self.port), "BEHAVIOUR": behaviour},
            stdout=asyncio.subprocess.DEVNULL,
        )
        self.by_hand.append(started)
        await self.until_good()
        return started

    async def until_good(self) -> None:
        async def answers() -> bool:
            with suppress(OSError):
                return bool(await self.who())
            return False

        await until(answers)

    async def until_asked(self, times: int) -> None:
        """Wait until others have asked so many times more how the service is."""
        first, ours = int((await self.who())["asked"]), itertools.count(1)

        async def asked() -> bool:
            return int((await self.who())["asked"]) - first - next(ours) >= times

        await until(asked)

    async def who(self) -> dict[str, str]:
        """What the service says now, on a new connection."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def names(self, times: int) -> set[str]:
        """Which instances answer now."""
        return {(await self.who())["instance"] for _ in range(times)}


@pytest.fixture
async def stage(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "app").mkdir()
    shutil.copy(STUB, tmp_path / "app" / "start_server.py")
    made = Stage(folder=tmp_path, port=port)
    made.behave()
    yield made
    own.end_all(tmp_path)
    for started in made.by_hand:
        if started.returncode is None:
            started.kill()
        await started.wait()
