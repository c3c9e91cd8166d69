"""`make serve` and `flows.publish` as a person and a unit start them: as processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airlock import ledger, server, settings
from airlock.postgres import connect, quote_literal
from flows.runtime import client, command, prefect_runtime
from flows.runtime.process import process
from tests.conftest import create_database, drop_database
from tests.stage import CHECKOUT

CONFIG = """
[targets.prod]
database_url_env = "PROD_DATABASE_URL"
[targets.prod.snapshot]
provider = "logical"
[targets.prod.clone]
dev_url_env = "DEV_DATABASE_URL"
[targets.prod.budget]
tries = 1000
[targets.prod.approval]
policy = "always"
[targets.prod.alerts]
slack_url_env = "PROD_SLACK_URL"
"""
MIGRATION = "-- Migration: {0}\n-- Purpose: a test\n\n{0};\n\n-- ROLLBACK NOTES\n-- {1};\n"
STEPS = (
    ("CREATE TABLE deals (id integer)", "DROP TABLE deals"),
    ("ALTER TABLE deals ADD COLUMN score integer", "ALTER TABLE deals DROP COLUMN score"),
    ("ALTER TABLE deals ADD COLUMN note text", "ALTER TABLE deals DROP COLUMN note"),
)
PATIENCE_S = 90
REASON = "low traffic until six"


@pytest.fixture(autouse=True)
def _on_the_server() -> None:
    """Not the session's server: the servers here are what is tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with airlock.toml and migrations, and the environment of its commands."""

    root: Path
    environment: Mapping[str, str]
    superuser_url: str
    words: tuple[str, ...]

    @property
    def state_dir(self) -> Path:
        return self.root / ".airlock" / "prefect"

    def migrate(self, version: int) -> None:
        folder = self.root / "migrations"
        folder.mkdir(exist_ok=True)
        text = MIGRATION.format(*STEPS[version - 1])
        (folder / f"{version:03d}_step.sql").write_text(text, encoding="utf-8")

    async def start(self, *arguments: str, output: Path, **variables: str) -> Process:
        with output.open("wb") as file:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *arguments),
                cwd=CHECKOUT,
                env={**self.environment, **variables},
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
            )

    async def airlock(self, *arguments: str, **variables: str) -> tuple[int, str]:
        output = self.root / "airlock.log"
        started = await self.start("airlock", *arguments, output=output, **variables)
        status = await asyncio.wait_for(started.wait(), PATIENCE_S)
        return status, output.read_text("utf-8")

    async def reaches(self, state: str) -> None:
        """Wait until the ledger has the last deploy in that state."""
        async with asyncio.timeout(PATIENCE_S), connect(self.superuser_url) as conn:
            while [row.state for row in await ledger.recent(conn)] != [state]:
                await asyncio.sleep(0.1)


@pytest.fixture
async def project(pg: server.Server, tmp_path: Path) -> AsyncIterator[Project]:
    """Only prod, with a word for each of its secrets that occurs nowhere else."""
    words = {name: f"planted{name}{secrets.token_hex(6)}" for name in ("owner", "slack", "auth")}
    role = f"deployer_{secrets.token_hex(4)}"
    async with connect(pg.url()) as superuser:
        await superuser.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD {quote_literal(words['owner'])}"
        )
    database = await create_database(pg, owner=role)
    async with connect(database.superuser_url) as superuser:
        await superuser.execute(f"ALTER SCHEMA public OWNER TO {role}")
    (tmp_path / "airlock.toml").write_text(CONFIG, encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    yield Project(
        root=tmp_path,
        environment=own
        | {
            settings.CONFIG_VARIABLE: str(tmp_path / "airlock.toml"),
            "PROD_DATABASE_URL": pg.tcp_url(database.name, role, words["owner"]),
            "DEV_DATABASE_URL": pg.url(),
            "PROD_SLACK_URL": f"http://127.0.0.1:{server.free_port()}/{words['slack']}",
            command.AUTH_VARIABLE: f"airlock:{words['auth']}",
        },
        superuser_url=database.superuser_url,
        words=tuple(words.values()),
    )
    await drop_database(database)
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"DROP ROLE {role}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`make serve` as it runs."""

    process: Process
    output: Path
    api_url: str
    children: tuple[psutil.Process, ...]

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8")

    async def says(self, words: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.text:
                assert self.process.returncode is None, self.text
                await asyncio.sleep(0.1)

    async def ends(self) -> int:
        """Its exit status, when nothing of it is left."""
        status = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        _, left = psutil.wait_procs(self.children, timeout=0)
        assert not left, self.text
        return status

    def child(self, word: str) -> psutil.Process:
        return next(each for each in self.children if word in each.cmdline())


@asynccontextmanager
async def serving(project: Project) -> AsyncIterator[Served]:
    output = project.root / "serve.log"
    started = await project.start("flows.serve", output=output)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while "Ctrl-C waits" not in output.read_text("utf-8"):
                assert started.returncode is None, output.read_text("utf-8")
                await asyncio.sleep(0.1)
        yield Served(
            process=started,
            output=output,
            api_url=(project.state_dir / "api-url").read_text("utf-8").strip(),
            children=tuple(psutil.Process(started.pid).children(recursive=True)),
        )
    finally:
        if started.returncode is None:
            for _ in range(2):
                started.send_signal(signal.SIGINT)
                await asyncio.sleep(1)
            await started.wait()


@pytest.fixture
def person(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows the auth string."""
    monkeypatch.setenv(command.AUTH_VARIABLE, project.environment[command.AUTH_VARIABLE])


async def schedule_of(http: httpx.AsyncClient, title: str) -> tuple[str, dict[str, Any]]:
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    (schedule,) = found["schedules"]
    return f"/deployments/{found['id']}/schedules/{schedule['id']}", schedule


async def switch_on(api_url: str, title: str, hour: str) -> None:
    async with client(api_url) as http:
        where, found = await schedule_of(http, title)
        changed = {"active": True, "schedule": {**found["schedule"], "cron": hour}}
        (await http.patch(where, json=changed)).raise_for_status()


async def is_on(api_url: str, title: str, hour: str) -> bool:
    async with client(api_url) as http:
        _, found = await schedule_of(http, title)
    return found["active"] and found["schedule"]["cron"] == hour


async def start_run(api_url: str, title: str, **parameters: str) -> str:
    async with client(api_url) as http:
        found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
        where = f"/deployments/{found['id']}/create_flow_run"
        answer = await http.post(where, json={"parameters": parameters})
        return answer.raise_for_status().json()["id"]


async def test_ctrl_c_waits_for_every_run_and_what_a_person_switched_on_stays_on(
    project: Project, person: None
) -> None:
    project.migrate(1)
    project.migrate(2)
    async with serving(project) as served:
        assert "deploy/prod" in served.text
        assert "staging, Run" not in served.text, "airlock.toml has no such target"
        assert "drift/nightly, 30 5 * * * Europe/London: off" in served.text
        await switch_on(served.api_url, "drift/nightly", "15 4 * * *")
        typed = await command_line_that_waits(project, served)
        await the_second_ctrl_c_takes_only_the_server(project, served, typed)
    project.migrate(3)
    async with serving(project) as served:
        assert "drift/nightly, 15 4 * * * Europe/London: on" in served.text
        assert await is_on(served.api_url, "drift/nightly", "15 4 * * *")
        await a_worker_that_dies_ends_the_waiting(project, served)
    nothing_planted_stands_in(project)


async def command_line_that_waits(project: Project, served: Served) -> Process:
    """With the address and the server's own variable only, as the manual has it."""
    typed = await project.start(
        *("airlock", "deploy", "prod", "--up-to", "2"),
        output=project.root / "typed.log",
        PREFECT_API_URL=served.api_url,
        PREFECT_CLIENT_MAX_RETRIES="0",
    )
    await project.reaches("rehearsed")
    return typed


async def the_second_ctrl_c_takes_only_the_server(
    project: Project, served: Served, typed: Process
) -> None:
    served.process.send_signal(signal.SIGINT)
    await served.says("Waiting for deploy prod 001…002 to end.")
    async with connect(project.superuser_url) as holder, holder.transaction():
        # Production waits for this in its second migration.
        await holder.execute("LOCK TABLE airlock.migration IN SHARE MODE")
        status, said = await project.airlock("approve", "prod", "--reason", REASON)
        assert status == 0, said
        await project.reaches("applying")
        assert served.process.returncode is None
        served.process.send_signal(signal.SIGINT)
        assert await served.ends() == 0
    assert await asyncio.wait_for(typed.wait(), PATIENCE_S) == 0
    said = (project.root / "typed.log").read_text("utf-8")
    assert "DEPLOYED – prod stands at 001…002. So says the ledger" in said


async def a_worker_that_dies_ends_the_waiting(project: Project, served: Served) -> None:
    run = await start_run(served.api_url, "deploy/prod", target="prod", requester="a test")
    async with client(served.api_url) as http, asyncio.timeout(PATIENCE_S):
        while (await http.get(f"/flow_runs/{run}")).json()["state_type"] != "PAUSED":
            await asyncio.sleep(0.2)
    served.process.send_signal(signal.SIGINT)
    await served.says("Waiting for deploy prod 003 to end.")
    worker = served.child("worker")
    for each in (*worker.children(recursive=True), worker):
        each.kill()
    assert await served.ends() == 1
    assert "The worker ended by itself" in served.text


def nothing_planted_stands_in(project: Project) -> None:
    """Job variables, approvals, and what server, worker and `prefect deploy` wrote."""
    files = [path for path in project.root.rglob("*") if path.is_file()]
    written = {path: path.read_bytes() for path in files if path.suffix != ".toml"}
    assert {"prefect.db", "worker.log", "server.log", "deployments.log"} <= {p.name for p in files}
    for known in (REASON, "Slack"):
        assert any(known.encode() in each for each in written.values()), known
    for word in project.words:
        assert [path for path, each in written.items() if word.encode() in each] == []
