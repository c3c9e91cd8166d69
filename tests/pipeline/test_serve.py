"""`make serve` and `flows.publish` as a person and a unit start them: as processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sqlite3
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airlock import ledger, server, settings
from airlock.postgres import quote_literal
from flows.automations import AUTOMATIONS, RECOVER, SILENT
from flows.runtime import auth, client, command
from flows.runtime.process import process, tail
from tests import own
from tests.conftest import Database, create_database, drop_database
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.pipeline import schedules
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
# Port 1 is nobody's.
NOWHERE = "http://127.0.0.1:1/api"
INSTALL = CHECKOUT / "docs" / "install"
# A machine of these tests has no Redis; a server by itself needs none.
NOT_HERE = (
    "PREFECT_MESSAGING_",
    "PREFECT_REDIS_",
    "PREFECT_SERVER_DOCKET_",
    "_ORDERING",
    "_STORAGE",
)
REASON = "low traffic until six"


async def until(
    found: Callable[[], Awaitable[bool]],
    process: Process | None = None,
    output: Path | None = None,
) -> None:
    """Asked every moment until it is so, as long as that process, which writes output, lives."""
    async with asyncio.timeout(PATIENCE_S):
        while not await found():
            if process is not None and process.returncode is not None:
                pytest.fail(f"It ended with {process.returncode}. {output and tail(output)}")
            await asyncio.sleep(0.1)


@pytest.fixture(autouse=True)
def _on_the_server() -> None:
    """Not the session's server: the servers here are what is tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with airlock.toml and migrations, and the environment of its commands."""

    root: Path
    auth_string: str
    environment: Mapping[str, str]
    superuser_url: str
    role: str
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

    async def reaches(
        self, state: str, process: Process | None = None, output: Path | None = None
    ) -> None:
        """Wait until the ledger has the last deploy in that state, as long as the process lives."""
        async with connect(self.superuser_url) as conn:

            async def reached() -> bool:
                return [row.state for row in await ledger.recent(conn)] == [state]

            await until(reached, process, output)


@pytest.fixture
async def project(pg: server.Server, tmp_path: Path, port: int) -> AsyncIterator[Project]:
    """Only prod, with a word for each of its secrets that occurs nowhere else."""
    words = {name: f"planted{name}{secrets.token_hex(6)}" for name in ("owner", "slack")}
    role = f"deployer_{secrets.token_hex(4)}"
    async with connect(pg.url()) as superuser:
        await superuser.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD {quote_literal(words['owner'])}"
        )
    database = await made_for(role, pg)
    (tmp_path / "airlock.toml").write_text(CONFIG, encoding="utf-8")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    state_dir = tmp_path / ".airlock" / "prefect"
    state_dir.mkdir(parents=True)
    secret = auth.auth_string(state_dir)
    yield Project(
        root=tmp_path,
        auth_string=secret,
        environment=ours
        | {
            settings.CONFIG_VARIABLE: str(tmp_path / "airlock.toml"),
            "PROD_DATABASE_URL": pg.tcp_url(database.name, role, words["owner"]),
            "DEV_DATABASE_URL": pg.url(),
            "PROD_SLACK_URL": f"http://127.0.0.1:{port}/{words['slack']}",
        },
        superuser_url=database.superuser_url,
        role=role,
        words=(*words.values(), secret, auth.encoded(secret)),
    )
    own.end_all(tmp_path)
    await drop_database(database)
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"DROP ROLE {role}")


async def made_for(role: str, pg: server.Server) -> Database:
    """A fresh database in which that role may make tables."""
    database = await create_database(pg, owner=role)
    async with connect(database.superuser_url) as superuser:
        await superuser.execute(f"ALTER SCHEMA public OWNER TO {role}")
    return database


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
        await until(said(self.output, words), self.process, self.output)

    async def ends(self) -> int:
        """Its exit status, when nothing of it is left."""
        status = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        _, left = psutil.wait_procs(self.children, timeout=PATIENCE_S)
        assert not left, self.text
        return status

    def child(self, word: str) -> psutil.Process:
        return next(each for each in self.children if word in each.cmdline())


def said(output: Path, words: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return words in output.read_text("utf-8")

    return found


@asynccontextmanager
async def serving(project: Project) -> AsyncIterator[Served]:
    output = project.root / "serve.log"
    started = await project.start("flows.serve", output=output)
    try:
        await until(said(output, "Ctrl-C waits"), started, output)
        yield Served(
            process=started,
            output=output,
            api_url=(project.state_dir / "api-url").read_text("utf-8").strip(),
            children=tuple(psutil.Process(started.pid).children(recursive=True)),
        )
    finally:
        if started.returncode is None:
            for _ in range(2):
                with suppress(ProcessLookupError):  # the first one may have been enough
                    started.send_signal(signal.SIGINT)
                await asyncio.sleep(1)
            await asyncio.wait_for(started.wait(), PATIENCE_S)


@pytest.fixture
def person(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows the auth string. The commands find it by themselves."""
    monkeypatch.setenv(auth.VARIABLE, project.auth_string)


async def schedule_of(http: httpx.AsyncClient, title: str) -> tuple[str, dict[str, Any]]:
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    (schedule,) = found["schedules"]
    return f"/deployments/{found['id']}/schedules/{schedule['id']}", schedule


async def switch_on(api_url: str, title: str, hour: str) -> None:
    async with client(api_url) as http:
        where, found = await schedule_of(http, title)
        changed = {"active": True, "schedule": {**found["schedule"], "cron": hour}}
        (await http.patch(where, json=changed)).raise_for_status()


async def pause(api_url: str, title: str) -> None:
    async with client(api_url) as http:
        found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
        (await http.post(f"/deployments/{found['id']}/pause_deployment")).raise_for_status()


async def is_paused(api_url: str, title: str) -> bool:
    async with client(api_url) as http:
        return (await http.get(f"/deployments/name/{title}")).raise_for_status().json()["paused"]


async def start_run(api_url: str, title: str, **parameters: str) -> str:
    async with client(api_url) as http:
        found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
        where = f"/deployments/{found['id']}/create_flow_run"
        answer = await http.post(where, json={"parameters": parameters})
        return answer.raise_for_status().json()["id"]


async def stands_in(api_url: str, run: str, state: str) -> None:
    """Wait until the run does."""
    async with client(api_url) as http:

        async def stands() -> bool:
            found = (await http.get(f"/flow_runs/{run}")).raise_for_status().json()
            return found["state_name"] == state

        await until(stands)


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
        await pause(served.api_url, "rollback/prod")
        typed = await command_line_that_waits(project, served)
        await strangers_are_not_answered(served)
        await queues_and_automations_are_there(served)
        the_auth_string_is_in_no_command_line(project, served)
        await the_second_ctrl_c_takes_only_the_server(project, served, typed)
    project.migrate(3)
    async with serving(project) as served:
        assert "drift/nightly, 15 4 * * * Europe/London: on" in served.text
        assert await is_paused(served.api_url, "rollback/prod")
        await a_worker_that_dies_ends_the_waiting(project, served)
    nothing_planted_stands_in(project)


@pytest.fixture
async def scheduled(pg: server.Server, project: Project) -> AsyncIterator[Project]:
    """The project with a staging to be refreshed, and a migration for production."""
    project.migrate(1)
    with (project.root / "airlock.toml").open("a", encoding="utf-8") as config:
        config.write(schedules.STAGING)
    async with schedules.staging(pg, project.role, project.superuser_url) as name:
        url = project.environment["PROD_DATABASE_URL"].rpartition("/")[0]
        added = {
            "STAGING_DATABASE_URL": f"{url}/{name}",
            "STAGING_SUPERUSER_URL": pg.url(name),
            "MASK_KEY": secrets.token_hex(16),
        }
        yield replace(project, environment={**project.environment, **added})


async def test_schedules_start_a_masked_refresh_a_drift_check_and_recover(
    scheduled: Project, person: None
) -> None:
    async with serving(scheduled) as served, client(served.api_url) as http:
        await every_schedule_starts_its_flow(scheduled, http, served.api_url, on_sqlite(scheduled))


async def every_schedule_starts_its_flow(
    project: Project, http: httpx.AsyncClient, api_url: str, ended: schedules.States
) -> None:
    await schedules.switch_off_automations(http)
    known = {"PREFECT_API_URL": api_url, "PREFECT_API_AUTH_STRING": project.auth_string}
    killed = await project.start(
        *("airlock", "deploy", "prod"),
        output=project.root / "killed.log",
        **known,
    )
    try:
        await project.reaches("rehearsed", killed, project.root / "killed.log")
    finally:
        with suppress(ProcessLookupError):
            killed.kill()
        await killed.wait()
    for turn in schedules.TURNS:
        async with asyncio.timeout(PATIENCE_S):
            for title in turn:
                await schedules.set_seconds_ahead(http, title)
        await schedules.all_end_well(turn, ended)
    await schedules.is_masked(project.environment["STAGING_SUPERUSER_URL"])
    await project.reaches("failed")
    status, said = await project.airlock("status", **known)
    assert (status, "schedules: next: " in said) == (0, True), said
    assert "refresh-staging/nightly at " in said
    _, said = await project.airlock("status", PREFECT_API_URL=NOWHERE)
    assert f"schedules: the Prefect server at {NOWHERE} does not answer (ConnectError)" in said


async def the_timer_tells_of_late_schedules_and_that_they_are_on_time(
    project: Project, api_url: str
) -> None:
    told = "SELECT body->>'headline' FROM airlock.alert WHERE body->>'kind' = 'schedules'"
    for address in (NOWHERE, api_url):
        status, said = await project.airlock("deliver", PREFECT_API_URL=address)
        assert status == 0, said
    async with connect(project.superuser_url) as conn:
        late, on_time = [row[0] for row in await conn.fetch(f"{told} ORDER BY id")]
    assert (
        late == f"SCHEDULES LATE – the Prefect server at {NOWHERE} does not answer (ConnectError)"
    )
    assert on_time.startswith("SCHEDULES ON TIME")


def on_sqlite(project: Project) -> schedules.States:
    async def ended() -> set[tuple[str, str]]:
        with closing(sqlite3.connect(command.database(project.state_dir))) as database:
            rows = database.execute(schedules.ENDED_RUNS).fetchall()
        return {(f"{flow}/{name}", state) for name, flow, state in rows}

    return ended


def on_postgresql(url: str) -> schedules.States:
    async def ended() -> set[tuple[str, str]]:
        async with connect(url.replace("+asyncpg", "")) as conn:
            rows = await conn.fetch(schedules.ENDED_RUNS)
        return {(f"{flow}/{name}", state) for name, flow, state in rows}

    return ended


async def strangers_are_not_answered(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.api_url, trust_env=False) as stranger:
        assert (await stranger.get("/admin/version")).status_code == httpx.codes.UNAUTHORIZED
        asked = await stranger.post("/flow_runs/filter", json={})
        assert asked.status_code == httpx.codes.FORBIDDEN


async def queues_and_automations_are_there(served: Served) -> None:
    async with client(served.api_url) as http:
        queue = await http.get(f"/work_pools/{command.WORK_POOL}/queues/prod")
        assert queue.raise_for_status().json()["concurrency_limit"] == 1
        found = (await http.post("/automations/filter", json={})).raise_for_status().json()
        named = {each.name for each in AUTOMATIONS}
        assert {each["name"] for each in found} == named | {RECOVER, SILENT}
        assert {each["name"] for each in found if each["enabled"]} == {RECOVER, SILENT}
        wanted = {"flows": {"name": {"any_": ["deploy"]}}}
        runs = (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()
        assert len(runs) == 1, "the command line's run is one of this server"


def the_auth_string_is_in_no_command_line(project: Project, served: Served) -> None:
    shown = " ".join(part for each in served.children for part in each.cmdline())
    assert "flows.runtime.server" in shown
    for hidden in (project.auth_string, auth.encoded(project.auth_string)):
        assert hidden not in shown


async def command_line_that_waits(project: Project, served: Served) -> Process:
    """With the address only, as the manual has it."""
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
    await stands_in(served.api_url, run, "Paused")
    served.process.send_signal(signal.SIGINT)
    await served.says("Waiting for deploy prod 003 to end.")
    worker = served.child("flows.worker")
    for each in (*worker.children(recursive=True), worker):
        each.kill()
    assert await served.ends() == 1
    assert "The worker ended by itself" in served.text


def nothing_planted_stands_in(project: Project) -> None:
    """Job variables, approvals, and what server, worker and `prefect deploy` wrote."""
    files = [path for path in project.root.rglob("*") if path.is_file()]
    written = {path.name: path.read_bytes() for path in files}
    assert b"slack has not taken" in written["worker.log"]
    assert {"server.log", "deployments.log", "typed.log", "serve.log"} <= written.keys()
    database = b"".join(text for name, text in written.items() if name.startswith("prefect.db"))
    for known in (REASON, "python -P -m flows.run"):
        assert known.encode() in database
    for word in project.words:
        found = {path.name for path in files if word.encode() in path.read_bytes()}
        assert found == ({auth.FILE} if word == project.auth_string else set())


@pytest.fixture
async def prefects_database(pg: server.Server, project: Project) -> AsyncIterator[str]:
    """Where the server of an installation keeps its runs."""
    async with connect(pg.url()) as superuser:
        wanted = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'pg_trgm'"
        if await superuser.fetchrow(wanted) is None:
            pytest.skip("Prefect needs the extension pg_trgm, which this PostgreSQL does not have")
    database = await made_for(project.role, pg)
    url = project.environment["PROD_DATABASE_URL"].rpartition("/")[0]
    yield f"{url.replace('postgresql', 'postgresql+asyncpg', 1)}/{database.name}"
    await drop_database(database)


def installed(project: Project, side: str, api_url: str, database: str) -> dict[str, str]:
    """The environment of one side, by its file in docs/install with the blanks filled in."""
    given = settings.env_values(INSTALL / f"{side}.env.example")
    filled = {
        "PREFECT_API_URL": api_url,
        auth.VARIABLE: project.auth_string,
        "PREFECT_API_AUTH_STRING": project.auth_string,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
    }
    here = {name: value for name, value in given.items() if not any(n in name for n in NOT_HERE)}
    own = project.environment
    path = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    home = {"PREFECT_HOME": str(project.root / side), "PATH": path}
    # As PrivateTmp of the units: Prefect's runner_storage in there belongs to whoever came first.
    home |= {"TMPDIR": str(project.root)}
    return here | own | home | {name: filled[name] for name in here.keys() & filled.keys()}


@pytest.fixture
def api_port() -> Iterator[int]:
    with own.port() as number:
        yield number


@asynccontextmanager
async def part(
    name: str, *arguments: str, project: Project, env: dict[str, str]
) -> AsyncIterator[Process]:
    """One part of the installation."""
    log = project.root / f"{name}.log"
    async with process([sys.executable, *arguments], log=log, env=env, end_s=20) as started:
        yield started


async def test_an_installation_on_postgresql_is_published_and_its_schedules_start_flows(
    scheduled: Project, person: None, prefects_database: str, api_port: int
) -> None:
    # Its commands are told the auth string, since no file here keeps that of such a server.
    told = {**scheduled.environment, auth.VARIABLE: scheduled.auth_string}
    project, port = replace(scheduled, environment=told), api_port
    api_url = command.api_url(command.LOOPBACK, port)
    servers, workers = (
        installed(project, side, api_url, prefects_database) for side in ("server", "worker")
    )
    servers["PREFECT_SERVER_UI_STATIC_DIRECTORY"] = str(project.root)
    start = ("-m", "flows.runtime.server", "--port", str(port), "--no-services")
    prefect = ("-m", "prefect", "server")
    worker = ("-P", "-m", "flows.worker", "--name")
    async with (
        part("server", *start, project=project, env=servers) as started,
        client(api_url) as http,
    ):
        status = ("status", "--wait", "--timeout", str(PATIENCE_S))
        async with part("status", *prefect, *status, project=project, env=servers) as asking:
            assert await asking.wait() == 0, tail(project.root / "server.log")
        assert started.returncode is None
        assert all((project.root / ui / "index.html").is_file() for ui in ("v1", "v2"))
        assert "<html" in (await http.get(api_url.removesuffix("/api"))).text
        await publish(project, servers)
        async with (
            # As its own unit, beside a server without them.
            part("services", *prefect, "services", "start", project=project, env=servers),
            part("first", *worker, "first", project=project, env=workers),
            part("second", *worker, "second", project=project, env=workers),
        ):
            await until(two_workers(http))
            await every_schedule_starts_its_flow(
                project, http, api_url, on_postgresql(prefects_database)
            )
            await the_timer_tells_of_late_schedules_and_that_they_are_on_time(project, api_url)
        await refused(project, "it wants another auth string", api_url, secret="airlock:another")
    await refused(project, "No Prefect server answers", api_url, secret="")


async def refused(project: Project, why: str, api_url: str, *, secret: str) -> None:
    """A command line that names a server which is not there for it has started nothing."""
    variables = {"PREFECT_API_URL": api_url, auth.VARIABLE: secret}
    status, answer = await project.airlock(
        "rollback", "prod", PREFECT_CLIENT_MAX_RETRIES="0", **variables
    )
    assert (status, why in answer, "Nothing was started" in answer) == (1, True, True), answer


async def publish(project: Project, env: dict[str, str]) -> None:
    output = project.root / "publish.log"
    published = await project.start("flows.publish", output=output, **env)
    assert await asyncio.wait_for(published.wait(), PATIENCE_S) == 0, output.read_text("utf-8")


def two_workers(http: httpx.AsyncClient) -> Callable[[], Awaitable[bool]]:
    async def two() -> bool:
        answer = await http.post(f"/work_pools/{command.WORK_POOL}/workers/filter", json={})
        found = answer.raise_for_status().json()
        return {each["name"] for each in found} == {"first", "second"}

    return two
