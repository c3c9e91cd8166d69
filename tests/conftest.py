"""The servers and databases that the tests run on."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from airlock import binaries, server
from airlock.errors import Refused
from airlock.postgres import quote_ident
from tests.people import connect

# Before Prefect is imported, which makes a folder in the home of whoever runs this.
PREFECT_HOME = Path(__file__).parents[1] / ".airlock" / "cache" / "prefect"
PREFECT_HOME.mkdir(parents=True, exist_ok=True)
os.environ["PREFECT_HOME"] = str(PREFECT_HOME)

from flows.runtime import Runtime, prefect_runtime  # noqa: E402 – see above
from tests import own  # noqa: E402

# The fixtures of whole deploys; after PREFECT_HOME is set, as for all that may import Prefect.
pytest_plugins = ["tests.stage"]

# How long an example takes says nothing on a machine that does other things as well.
hypothesis.settings.register_profile("airlock", deadline=None)
hypothesis.settings.load_profile("airlock")

OWNER = "owner"
OWNER_PASSWORD = "owner's pass"
SUPERUSER_PASSWORD = "the superuser's pass"
TEMPLATE = "airlock_test_template"

# A server that can be backed up both ways, and that loses nothing which a test would miss.
TEST_SETTINGS = {
    **server.SCRATCH_SETTINGS,
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_connections": "100",
    "autovacuum": "off",
}

_numbers = itertools.count(1)


_HAS_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    report = yield
    if report.failed:
        item.stash[_HAS_FAILED] = True
    return report


@pytest.fixture(autouse=True)
async def _a_test_that_failed_leaves_no_task(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What it began would go on beside the tests after it, and fail those."""
    before = asyncio.all_tasks()
    yield
    if request.node.stash.get(_HAS_FAILED, False):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def pytest_collection_finish() -> None:
    """What is imported by now stays; the collector need not walk through all of Prefect again."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database of a test: owned by an ordinary role, gone afterwards."""

    name: str
    url: str
    tcp_url: str
    superuser_url: str
    server: server.Server


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    # Short, so that the sockets' paths fit.
    with tempfile.TemporaryDirectory(prefix="airlock-t-") as folder:
        yield Path(folder)


async def start_server(
    stack: AsyncExitStack,
    found: binaries.Binaries,
    folder: Path,
    settings: Mapping[str, str] = TEST_SETTINGS,
) -> server.Server:
    """A server with the roles and the template that ``database`` needs."""
    await server.initdb(found, folder)
    port = stack.enter_context(own.port())
    running = server.running(found, folder, port=port, settings=settings)
    pg = await stack.enter_async_context(running)
    async with connect(pg.url()) as superuser:
        secret = SUPERUSER_PASSWORD.replace("'", "''")
        await superuser.execute(f"ALTER ROLE postgres PASSWORD '{secret}'")
        secret = OWNER_PASSWORD.replace("'", "''")
        await superuser.execute(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{secret}'")
        await superuser.execute(f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}")
    async with connect(pg.url(TEMPLATE)) as superuser:
        await superuser.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
    return pg


@pytest.fixture(scope="session")
async def pg_of() -> AsyncIterator[Callable[[int | None], Awaitable[server.Server]]]:
    """A function: major version (None: the default) to its server, started when first asked for."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="airlock-t-"))
        started: dict[Path, server.Server] = {}
        lock = asyncio.Lock()

        async def get(major: int | None = None) -> server.Server:
            try:
                found = binaries.find(major=major)
            except Refused as error:
                pytest.skip(str(error))
            async with lock:
                if found.directory not in started:
                    data_dir = Path(folder) / f"pg{len(started)}"
                    started[found.directory] = await start_server(stack, found, data_dir)
                return started[found.directory]

        yield get


@pytest.fixture(scope="session")
async def pg(pg_of: Callable[[int | None], Awaitable[server.Server]]) -> server.Server:
    """The server of the whole test run."""
    return await pg_of(None)


@pytest.fixture
def port() -> Iterator[int]:
    """A loopback port that is this test's alone, and free."""
    with own.port() as found:
        yield found


@pytest.fixture
async def database_on() -> AsyncIterator[Callable[..., Awaitable[Database]]]:
    """A function: server to a fresh database on it, owned by an ordinary role."""
    made: list[Database] = []

    async def make(on: server.Server, *, owner: str = OWNER) -> Database:
        database = await create_database(on, owner=owner)
        made.append(database)
        return database

    yield make
    for database in made:
        await drop_database(database)


@pytest.fixture
async def database(pg: server.Server) -> AsyncIterator[Database]:
    """A fresh database, owned by an ordinary role, dropped afterwards."""
    made = await create_database(pg)
    yield made
    await drop_database(made)


async def create_database(on: server.Server, *, owner: str = OWNER) -> Database:
    """A fresh database. STRATEGY FILE_COPY checkpoints: the default is faster for a small one."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    async with connect(on.url()) as superuser:
        await superuser.execute(
            f"CREATE DATABASE {quote_ident(name)} OWNER {quote_ident(owner)} TEMPLATE {TEMPLATE}"
        )
    return Database(
        name=name,
        url=on.url(name, owner),
        tcp_url=on.tcp_url(name, owner, OWNER_PASSWORD),
        superuser_url=on.url(name),
        server=on,
    )


async def drop_database(database: Database) -> None:
    """Drop it, whoever is still connected."""
    async with connect(database.server.url()) as superuser:
        await superuser.execute(
            f"DROP DATABASE IF EXISTS {quote_ident(database.name)} WITH (FORCE)"
        )


@pytest.fixture(scope="session")
async def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """One Prefect server for all flows: 6 s from its prepared database, 15 s the first time.

    Without a worker: tests call their flows in this process.
    """
    state_dir = tmp_path_factory.mktemp("prefect")
    with own.port() as port:
        async with prefect_runtime(state_dir, port=port, worker=False) as runtime:
            yield runtime


@pytest.fixture
def flows_report_to_the_server(prefect_server: Runtime) -> Iterator[None]:
    """Each flow that a test calls is a run on that server, whatever Prefect the person uses."""
    with prefect_server.as_current():
        yield
