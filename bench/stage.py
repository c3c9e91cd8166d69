"""Servers, projects and environments that the measurements run on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from airlock import binaries, migration, server, settings
from airlock.binaries import Binaries
from airlock.postgres import Conn, quote_ident
from bench.rounds import CHECKOUT, PLACE
from tests.people import connect

URL_VARIABLE = "AIRLOCK_BENCH_DATABASE_URL"
REPLICATION_VARIABLE = "AIRLOCK_BENCH_REPLICATION_URL"
OWNER = "tracker"

# Everything is written through to the disk, as on a server that one cares for.
PRODUCTION_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_connections": "60",
}


@asynccontextmanager
async def production(folder: Path, name: str = "production") -> AsyncGenerator[server.Server]:
    """A server with an ordinary role; its data are gone afterwards."""
    found = binaries.find(need=(*binaries.SERVER_TOOLS, "psql"))
    data_dir = folder / name
    shutil.rmtree(data_dir, ignore_errors=True)
    try:
        await server.initdb(found, data_dir)
        async with server.running(found, data_dir, settings=PRODUCTION_SETTINGS) as running:
            async with connect(running.url()) as superuser:
                await superuser.execute(f"CREATE ROLE {OWNER} LOGIN")
            yield running
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


@asynccontextmanager
async def scratch(found: Binaries, folder: Path) -> AsyncGenerator[server.Server]:
    """A server that waits for no disk, as the one on which Airlock restores a dump."""
    data_dir = folder / "scratch"
    shutil.rmtree(data_dir, ignore_errors=True)
    try:
        await server.initdb(found, data_dir)
        settings_ = {**server.SCRATCH_SETTINGS, "maintenance_work_mem": "64MB", "autovacuum": "off"}
        async with server.running(found, data_dir, settings=settings_) as running:
            async with connect(running.url()) as superuser:
                await superuser.execute(f"CREATE ROLE {OWNER} LOGIN")
            yield running
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


async def create_database(on: server.Server, name: str) -> None:
    """A new, empty database that belongs to the ordinary role."""
    async with connect(on.url()) as superuser:
        await superuser.execute(f"CREATE DATABASE {quote_ident(name)} OWNER {OWNER}")
    async with connect(on.url(name)) as superuser:
        await superuser.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")


async def drop_database(on: server.Server, name: str) -> None:
    async with connect(on.url()) as superuser:
        await superuser.execute(f"DROP DATABASE IF EXISTS {quote_ident(name)} WITH (FORCE)")


def tracker_files(up_to: int = 9) -> tuple[Path, ...]:
    """The tracker's migrations, the first ``up_to``."""
    return tuple(sorted((CHECKOUT / "migrations").glob("*.sql"))[:up_to])


async def run_files(conn: Conn, files: Iterable[Path]) -> None:
    """Run migrations forward, with no ledger, in the transactions that Airlock gives them."""
    for path in files:
        for segment in migration.script(migration.read(path).forward):
            if not segment.transactional:
                await conn.execute(segment.statements[0].text)
                continue
            async with conn.transaction():
                for statement in segment.statements:
                    await conn.execute(statement.text)


def project(root: Path, more: str = "") -> None:
    """A folder with airlock.toml, target "bench", and no migrations yet."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "migrations").mkdir(parents=True)
    (root / "airlock.toml").write_text(
        f"[targets.bench]\n"
        f'database_url_env = "{URL_VARIABLE}"\n'
        f'replication_url_env = "{REPLICATION_VARIABLE}"\n{more}',
        encoding="utf-8",
    )


def environment(root: Path, on: server.Server, database: str) -> dict[str, str]:
    """Our environment, with what a process of ours needs to find project and database."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept,
        # As on any machine where Python may keep what it compiled.
        "PYTHONPYCACHEPREFIX": str(PLACE / "bytecode"),
        settings.CONFIG_VARIABLE: str(root / "airlock.toml"),
        URL_VARIABLE: on.url(database, OWNER),
        REPLICATION_VARIABLE: on.url(database),
        "PYTHONPATH": str(CHECKOUT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def airlock(*arguments: str) -> list[str]:
    """The argv of the command line."""
    return [sys.executable, "-m", "airlock", *arguments]
