"""A whole stage for a deploy: production at 009 with rows, its service with releases, a webhook."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airlock import contents, ledger, release, server, service, settings
from airlock import deploy as steps
from airlock.catalogue import Catalogue
from airlock.contents import Contents
from airlock.introspection import read_catalogue
from airlock.postgres import quote_ident
from airlock.request import DeployRequest
from airlock.service import probe
from tests import own
from tests.patience import PATIENCE_S
from tests.people import connect

CHECKOUT = Path(__file__).resolve().parents[1]
TRACKER = CHECKOUT / "examples" / "ma_tracker"
sys.path.insert(0, str(TRACKER))

# A migration: forward and reverse.
CONTRACT = (
    "-- Phase: contract\nALTER TABLE alerts DROP COLUMN acknowledged_at;",
    """ALTER TABLE alerts ADD COLUMN acknowledged_at timestamptz;
    COMMENT ON COLUMN alerts.acknowledged_at IS 'When a person said "seen"; null before';""",
)

ADD_COLUMN = ("ALTER TABLE deals ADD COLUMN score integer;", "ALTER TABLE deals DROP COLUMN score;")
DROP_INDEX = (
    "-- Phase: contract\nDROP INDEX idx_alerts_created_at;",
    "CREATE INDEX idx_alerts_created_at ON alerts (created_at DESC);",
)

HEALTH = "    try:\n        version = await store(request).schema_version()\n"
OK = '    return JSONResponse(\n        {\n            "status": "ok",\n'
MISSES_INDEX = (
    "    found = \"SELECT to_regclass('idx_alerts_created_at')\"\n"
    "    if await store(request)._pool.fetchval(found) is None:\n"
    '        return JSONResponse({"status": "unhealthy", "reason": "no index"}, 503)\n'
)
# Not by counting questions: whoever asks besides would be counted before it was found to be ready.
UNWELL = (
    "    found = \"SELECT state IN ('restarted', 'rolling_back', 'stranded') FROM airlock.deploy"
    ' ORDER BY id DESC LIMIT 1"\n'
    "    if await store(request)._pool.fetchval(found):\n"
    '        return JSONResponse({"status": "unhealthy", "reason": "no quotes"}, 503)\n'
)
BOOT = 'database_url = os.environ.get("DATABASE_URL")\n'

# What each bad release does otherwise than the good one: file, text, replacement.
RELEASES: dict[str, tuple[str, str, str]] = {
    "v1": ("routes.py", "", ""),
    "v2": ("routes.py", "", ""),
    # Well until the contract has taken an index away.
    "clings": ("routes.py", OK, MISSES_INDEX + OK),
    # Without a column that every other release reads.
    "v3": ("store.py", "acknowledged_at, created_at", "created_at"),
    # Well until the deploy has restarted it.
    "unhealthy": ("routes.py", HEALTH, UNWELL + HEALTH),
    "flapping": (
        "routes.py",
        HEALTH,
        "    global asked\n    asked += 1\n    if asked % 4 == 0:\n"
        '        return JSONResponse({"status": "unhealthy", "reason": "now and then"}, 503)\n'
        + HEALTH,
    ),
    "port-taken": (
        "start_server.py",
        "    " + BOOT,
        '    socket.create_server(("127.0.0.1", int(os.environ["TAKEN_PORT"])))\n    ' + BOOT,
    ),
    # What it says cannot be stored as it is.
    "exits": ("start_server.py", "    " + BOOT, '    sys.exit("no \\0 licence")\n    ' + BOOT),
    "never-ready": ("start_server.py", "    " + BOOT, "    signal.pause()\n    " + BOOT),
}


@dataclass(slots=True)
class Webhook:
    """A receiver of alerts on loopback."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    came_at: list[datetime] = field(default_factory=list)
    status: int | None = 200  # None: it says nothing, for as long as the caller stays

    @property
    def text(self) -> str:
        return "\n".join(body["text"] for body in self.bodies)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # who called was killed
            writer.close()
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        self.bodies.append(json.loads(await reader.readexactly(length)))
        self.came_at.append(datetime.now(UTC))
        if self.status is None:
            await reader.read()
        else:
            writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def receiving() -> AsyncIterator[Webhook]:
    """A webhook that answers."""
    found = Webhook()
    async with await asyncio.start_server(found.handle, "127.0.0.1", 0) as receiver:
        found.url = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/hook"
        yield found


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that a rollback must bring back."""

    catalogue: Catalogue
    contents: Contents


@dataclass(slots=True, kw_only=True)
class Stage:
    """Production with its service, and the means to deploy to it and to look at it."""

    root: Path
    port: int
    webhook: Webhook
    superuser_url: str

    @property
    def target(self) -> settings.Target:
        return settings.target("prod")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def change(self, old: str, new: str) -> None:
        """Write another airlock.toml."""
        config = self.root / settings.CONFIG_NAME
        text = config.read_text("utf-8")
        assert old in text, text
        config.write_text(text.replace(old, new, 1), encoding="utf-8")

    def try_releases(self) -> None:
        """Let the rehearsal start releases, which most tests are not about."""
        self.change("try_releases = false", "try_releases = true")

    def add(self, settings_text: str) -> None:
        """Append to airlock.toml."""
        with (self.root / settings.CONFIG_NAME).open("a", encoding="utf-8") as config:
            config.write(settings_text)

    def migration(self, version: int, name: str, forward: str, reverse: str) -> None:
        """Add a migration file."""
        notes = "\n".join(f"-- {line}" for line in reverse.strip().splitlines())
        (self.root / "migrations" / f"{version:03d}_{name}.sql").write_text(
            f"-- Migration {version:03d}: {name}\n-- Purpose: a test\n-- Author: tests\n"
            f"-- Date: 2026-01-01\n\n{forward}\n\n-- ROLLBACK NOTES\n{notes}\n",
            encoding="utf-8",
        )

    async def world(self) -> World:
        async with connect(self.superuser_url) as conn:
            catalogue = await read_catalogue(conn)
            columns = {table: catalogue.columns(*table) for table in catalogue.stores}
            read = await contents.read_contents(conn, columns, max_bytes=2**40)
        return World(catalogue=catalogue, contents=read)

    async def health(self) -> dict[str, Any]:
        async with probe.client() as http:
            return (await http.get(f"{self.base_url}/health")).json()

    async def last(self) -> ledger.Deploy:
        async with ledger.connection(self.target) as conn:
            return (await ledger.recent(conn))[0]


def project(root: Path, *, port: int, service_table: bool = True) -> None:
    """airlock.toml and the tracker's migrations up to 010."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(CHECKOUT / "migrations", root / "migrations")
    text = """
[targets.prod]
database_url_env = "PROD_DATABASE_URL"
replication_url_env = "PROD_REPLICATION_URL"
[targets.prod.budget]
tries = 5
max_block_ms = 10000
[targets.prod.clone]
try_releases = false
[targets.prod.alerts]
slack_url_env = "PROD_SLACK_URL"
"""
    if service_table:
        text += f"""
[targets.prod.service]
repository = "service"
directory = "service"
port = {port}
env = ["DATABASE_URL", "TAKEN_PORT"]
ready_s = {PATIENCE_S}
[targets.prod.health]
url = "http://127.0.0.1:{port}/health"
consecutive = 3
interval_ms = 50
timeout_s = 30
bake_s = 0.3
smoke = [{{ path = "/deals?limit=1" }}]
"""
    (root / "airlock.toml").write_text(text, encoding="utf-8")


def git(folder: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="session")
def service_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "service")


def make_repository(folder: Path, releases: Mapping[str, tuple[str, str, str]] = RELEASES) -> Path:
    """The reference service's repository, one tag for each release."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TRACKER / "python-service", folder, ignore=ignored)
    git(folder, "init", "--quiet", "--initial-branch=main")
    originals = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    for tag, (file, text, replacement) in releases.items():
        assert text in originals[file], f"{tag}: the service's {file} changed; mend RELEASES"
        for name, original in originals.items():
            (folder / name).write_text(original, encoding="utf-8")
        if text:
            changed = originals[file].replace(text, replacement, 1)
            if "global asked" in changed:
                changed = changed.replace("\nrouter = ", "\nasked = 0\nrouter = ", 1)
            (folder / file).write_text(changed, encoding="utf-8")
        (folder / "RELEASE").write_text(tag, encoding="utf-8")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", tag)
        git(folder, "tag", tag)
    git(folder, "checkout", "--quiet", "v1")
    return folder


@pytest.fixture(scope="session")
async def base_009(
    pg: server.Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    name = f"base_009_{os.getpid()}"
    await make_base(pg, name, tmp_path_factory.mktemp("base") / "project")
    yield name
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"DROP DATABASE {quote_ident(name)} WITH (FORCE)")


async def make_base(pg: server.Server, name: str, root: Path) -> None:
    """A database that Airlock itself brought to 009, with rows; the template of the others."""
    import load_data

    project(root, port=1, service_table=False)
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"CREATE DATABASE {quote_ident(name)} OWNER owner")
    async with connect(pg.url(name)) as superuser:
        await superuser.execute("ALTER SCHEMA public OWNER TO owner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.CONFIG_VARIABLE, str(root / "airlock.toml"))
        patch.setenv("PROD_DATABASE_URL", pg.url(name, "owner"))
        patch.setenv("PROD_REPLICATION_URL", pg.url(name))
        lease = await steps.open_deploy(DeployRequest(target="prod", up_to=9))
        assert lease is not None
        for step in (
            steps.take_snapshot,
            steps.rehearse,
            steps.ask,
            steps.apply_plan,
            steps.verify_schema,
            steps.succeed,
        ):
            await step(lease)
    async with connect(pg.url(name, "owner")) as conn:
        await load_data.load(conn, deals=300)


@asynccontextmanager
async def standing(
    root: Path,
    *,
    pg: server.Server,
    base: str,
    repository: Path,
    webhook: Webhook,
    patch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Production at 009, release v1 serving; gone afterwards, its environment with ``patch``."""
    with own.port() as port, socket.create_server(("127.0.0.1", 0)) as taken:
        name = f"stage_{os.getpid()}_{port}"
        project(root, port=port)
        shutil.copytree(repository, root / "service")
        async with connect(pg.url()) as superuser:
            await superuser.execute(
                f"CREATE DATABASE {quote_ident(name)} OWNER owner TEMPLATE {quote_ident(base)}"
            )
        try:
            _hand_on(patch, root, name, pg=pg, webhook=webhook, taken=taken)
            made = Stage(root=root, port=port, webhook=webhook, superuser_url=pg.url(name))
            first = await release.check_out(made.target, "v1")
            await service.restart(made.target, first, old=None, token="before")
            yield made
        finally:
            own.end_all(root)
            async with connect(pg.url()) as superuser:
                await superuser.execute(f"DROP DATABASE {quote_ident(name)} WITH (FORCE)")


def _hand_on(
    patch: pytest.MonkeyPatch,
    root: Path,
    name: str,
    *,
    pg: server.Server,
    webhook: Webhook,
    taken: socket.socket,
) -> None:
    """Let this process, and what it starts, find the stage."""
    for variable, value in {
        settings.CONFIG_VARIABLE: str(root / "airlock.toml"),
        "PROD_DATABASE_URL": pg.url(name, "owner"),
        "PROD_REPLICATION_URL": pg.url(name),
        "PROD_SLACK_URL": webhook.url,
        "DATABASE_URL": pg.url(name, "owner"),
        "TAKEN_PORT": str(taken.getsockname()[1]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }.items():
        patch.setenv(variable, value)
