"""The stage: production, its service, Prefect and a webhook, set up and all ended again."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from airlock import ledger, release, server, service, settings
from airlock.catalogue import Catalogue
from airlock.errors import AirlockError, Broken, Refused
from airlock.introspection import read_catalogue
from airlock.plan import AppliedMigration
from airlock.postgres import connect
from airlock.service import process
from airlock.settings import Target
from examples.ma_tracker import traffic
from examples.ma_tracker.demo import production, releases
from examples.ma_tracker.demo.production import ROOT, Production, Secrets
from examples.ma_tracker.demo.show import Checklist
from examples.ma_tracker.demo.webhook import Webhook, receiving
from flows.runtime import Runtime, prefect_runtime

FOLDER = ROOT / ".airlock" / "demo"
CONFIG = FOLDER / settings.CONFIG_NAME
MIGRATIONS = FOLDER / "migrations"
REPORTS = FOLDER / "reports"
ENV_FILE = FOLDER / "prod.env"
# Where the command line and make serve look for it.
PREFECT = FOLDER / "state" / "prefect"
POSTGRES = FOLDER / "postgres"
FIRST_RELEASE = "v1"

TEMPLATE = """\
# Written by make demo. What each key means: airlock.toml of the checkout.
state_dir = "state"

[targets.prod]
database_url_env = "PROD_DATABASE_URL"
replication_url_env = "PROD_REPLICATION_URL"
env_file = "prod.env"

# Wherever this is run: the clone of a busy machine is slow.
[targets.prod.budget]
max_block_ms = 2000

[targets.prod.alerts]
slack_url_env = "PROD_SLACK_URL"

[targets.prod.service]
repository = "service"
directory = "service"
port = {port}
env = ["DATABASE_URL"]

[targets.prod.health]
url = "http://127.0.0.1:{port}/health"
bake_s = 2
smoke = [{{ path = "/deals?limit=1" }}, {{ path = "/alerts?limit=1" }}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a deploy that does not succeed must leave as it was."""

    schema: Catalogue
    applied: tuple[AppliedMigration, ...]
    health: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs, and the means to look at it."""

    target: Target
    production: Production
    runtime: Runtime
    webhook: Webhook

    @property
    def base_url(self) -> str:
        return base_url(self.target)

    async def health(self) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            return (await http.get(f"{self.base_url}/health")).json()

    async def world(self) -> World:
        async with ledger.connection(self.target) as conn:
            schema, applied = await read_catalogue(conn), await ledger.applied(conn)
        return World(schema=schema, applied=applied, health=await self.health())

    async def lost(self, writes: tuple[traffic.Write, ...]) -> tuple[traffic.Write, ...]:
        """What the service has acknowledged and production does not have."""
        async with connect(self.production.url, pinned=False) as conn:
            return await traffic.lost(conn, writes)


def base_url(target: Target) -> str:
    made = service.configured(target)
    return f"http://{made.host}:{made.port}"


def place_migration(name: str) -> None:
    """Put one of the demo's 011 into the folder, and take the other one out."""
    for other in MIGRATIONS.glob("011_*.sql"):
        other.unlink()
    shutil.copy(Path(__file__).parent / "migrations" / name, MIGRATIONS)


@asynccontextmanager
async def set_up(checklist: Checklist) -> AsyncIterator[Stage]:
    """The whole stage in a wiped folder; nothing of it runs any more afterwards."""
    with _alone():
        await _wipe()
        target = _project()
        env = Secrets(ENV_FILE)
        # Ended from the last to the first: the worker, which may be in the middle of a deploy,
        # then what its deploys have started, then the database under both.
        async with (
            receiving() as webhook,
            AsyncExitStack() as database,
            _service_ended(target),
            AsyncExitStack() as prefect,
        ):
            env.write(PROD_SLACK_URL=webhook.url)
            async with asyncio.TaskGroup() as group:
                started = group.create_task(_prefect(prefect, checklist))
                made = group.create_task(_production(database, target, env, checklist))
            yield Stage(
                target=target, production=made.result(), runtime=started.result(), webhook=webhook
            )


async def _production(
    stack: AsyncExitStack, target: Target, env: Secrets, checklist: Checklist
) -> Production:
    made = await production.start(stack, POSTGRES, env, checklist)
    with checklist.step("starting python-service, release v1") as step:
        await releases.make_repository(FOLDER / "service")
        first = await release.check_out(target, FIRST_RELEASE)
        await service.restart(target, first, old=None, token="demo")  # noqa: S106 - a name
        step.note = base_url(target)
    return made


async def _prefect(stack: AsyncExitStack, checklist: Checklist) -> Runtime:
    with checklist.step("starting Prefect: server, worker, deployments") as step:
        started = await stack.enter_async_context(prefect_runtime(PREFECT))
        step.note = started.ui_url
    return started


# ---------------------------------------------------------------- folder


@contextmanager
def _alone() -> Iterator[None]:
    """One demo at a time in this checkout."""
    FOLDER.parent.mkdir(mode=0o700, exist_ok=True)
    with (FOLDER.parent / "demo.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                "A demo runs in this checkout already. End it with Ctrl-C, or use another checkout."
            ) from error
        yield


async def _wipe() -> None:
    """Remove what the last demo left, ending first what it left running when it was killed."""
    await asyncio.to_thread(_end_orphans)
    if CONFIG.is_file():
        with suppress(AirlockError):
            await end_service(settings.load(CONFIG).target("prod"))
    await asyncio.to_thread(_remove, FOLDER)


def _end_orphans() -> None:
    """Prefect's processes of this very folder; PostgreSQL ends with whoever started it."""
    found: list[psutil.Process] = []
    for each in psutil.process_iter():
        # Other people's processes do not show their environment.
        with suppress(psutil.Error, OSError):
            if each.environ().get("PREFECT_HOME") == str(PREFECT):
                found.append(each)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in found:
            with suppress(psutil.Error):
                each.send_signal(number)
        _, found = psutil.wait_procs(found, timeout=15)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _project() -> Target:
    """A project of its own, so that the checkout's airlock.toml and migrations stay as they are."""
    FOLDER.mkdir(mode=0o700, parents=True)
    REPORTS.mkdir()
    ignored = shutil.ignore_patterns("011_*")
    shutil.copytree(ROOT / "migrations", MIGRATIONS, ignore=ignored)
    CONFIG.write_text(TEMPLATE.format(port=server.free_port()), encoding="utf-8")
    # For the worker and the flows it starts. The service is started with the python of PATH.
    os.environ[settings.CONFIG_VARIABLE] = str(CONFIG)
    ours = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([ours, os.environ.get("PATH", os.defpath)])
    return settings.target("prod")


def tidy() -> None:
    """Give the disk space back: servers that have ended need no data. Logs and reports stay."""
    for folder in (POSTGRES, FOLDER / "state" / "prod" / "snapshots"):
        _remove(folder)


def logs() -> tuple[Path, ...]:
    """The log files there are, for the one who has to find out what went wrong."""
    found = [
        server.log_file(POSTGRES),
        *(PREFECT / f"{name}.log" for name in ("server", "worker", "deployments")),
        *(FOLDER / "state" / "prod" / "service").glob("**/*.log"),
    ]
    return tuple(path for path in found if path.is_file() and path.stat().st_size)


# ---------------------------------------------------------------- service


@asynccontextmanager
async def _service_ended(target: Target) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.shield(asyncio.ensure_future(end_service(target)))


async def end_service(target: Target) -> None:
    """End every instance of the demo's service, whichever release it is."""
    for instance in process.running(target):
        await service.stop(target, instance)


# ---------------------------------------------------------------- Prefect


async def start_run(http: httpx.AsyncClient, parameters: dict[str, Any]) -> str:
    """Start deploy/prod as the UI does; the id of the flow run."""
    found = await http.get("/deployments/name/deploy/prod")
    deployment = found.raise_for_status().json()["id"]
    path = f"/deployments/{deployment}/create_flow_run"
    made = await http.post(path, json={"parameters": parameters})
    return made.raise_for_status().json()["id"]


async def final_state(http: httpx.AsyncClient, run: str) -> tuple[str, str] | None:
    """Name and message of the state in which the run has ended; None while it has not."""
    state = (await http.get(f"/flow_runs/{run}")).raise_for_status().json()["state"]
    if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        return state["name"], state["message"] or ""
    return None


def client(stage: Stage) -> httpx.AsyncClient:
    return stage.runtime.client()


def check_alive(stage: Stage) -> None:
    """Raises Broken when production or Prefect has ended by itself."""
    if not stage.production.server.is_running:
        raise Broken(f"PostgreSQL ended by itself. See {server.log_file(POSTGRES)}")
