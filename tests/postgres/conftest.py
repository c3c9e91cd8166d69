"""A project whose production is one database of the test server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from airlock import contents, ledger, migration, settings
from airlock import deploy as steps
from airlock.apply import Runner
from airlock.catalogue import Catalogue
from airlock.contents import Content, Table
from airlock.introspection import read_catalogue
from airlock.ledger import Lease
from airlock.migration import Migration
from airlock.plan import AppliedMigration, Plan
from airlock.postgres import Conn
from airlock.request import DeployRequest
from airlock.settings import Budget
from tests.conftest import Database
from tests.patience import until
from tests.people import connect

# Impatient, so that a test of waiting does not wait.
BUDGET = Budget(lock_timeout_ms=60, tries=3, pause_ms=5, statement_timeout_s=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One checkout with the target ``prod``, without a service."""

    root: Path
    database: Database

    @property
    def target(self) -> settings.Target:
        return settings.target("prod")

    @property
    def url(self) -> str:
        return self.database.url

    def write(self, version: int, forward: str, reverse: str, *, name: str = "step") -> Path:
        """Add a migration file."""
        notes = "\n".join(f"-- {line}" for line in reverse.strip().splitlines())
        path = self.root / "migrations" / f"{version:03d}_{name}.sql"
        path.write_text(
            f"-- Migration {version:03d}: {name}\n-- Purpose: a test\n-- Author: tests\n"
            f"-- Date: 2026-01-01\n\n{forward}\n\n-- ROLLBACK NOTES\n{notes}\n",
            encoding="utf-8",
        )
        return path

    def migrations(self) -> tuple[Migration, ...]:
        return tuple(map(migration.parse, migration.read_folder(self.root / "migrations")))

    async def execute(self, sql: str) -> None:
        async with connect(self.url) as conn:
            await conn.execute(sql)

    async def fetch(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        async with connect(self.url) as conn:
            return [tuple(row) for row in await conn.fetch(sql, *values)]

    async def sleeps(self) -> None:
        """Wait until a migration is in the middle of its pg_sleep()."""
        asks = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database())"
        )
        async with connect(self.database.superuser_url) as conn:
            await until(lambda: conn.fetchval(asks))

    async def catalogue(self) -> Catalogue:
        async with connect(self.url) as conn:
            return await read_catalogue(conn)

    async def contents(self) -> Mapping[Table, Content]:
        catalogue = await self.catalogue()
        async with connect(self.database.superuser_url) as conn:
            columns = {table: catalogue.columns(*table) for table in catalogue.stores}
            return (await contents.read_contents(conn, columns, max_bytes=2**40)).tables

    async def begin(self) -> Lease:
        """A deploy of all migration files, opened in the ledger without looking further."""
        async with connect(self.url) as conn:
            await ledger.ensure(conn)
            before = await ledger.save_catalogue(conn, await read_catalogue(conn))
            plan = Plan(
                target="prod", head=None, migrations=self.migrations(), schema_before=before
            )
            return await ledger.begin(conn, DeployRequest(target="prod"), plan)

    async def take_over(self, lease: Lease) -> Lease:
        async with connect(self.url) as conn:
            return await ledger.take_over(conn, await ledger.deploy(conn, lease.deploy))

    async def rows(self, lease: Lease) -> tuple[AppliedMigration, ...]:
        async with connect(self.url) as conn:
            return await ledger.migrations_of(conn, lease.deploy)

    async def deploy(self, **request: object) -> Lease:
        """A whole deploy, step by step."""
        lease = await steps.open_deploy(DeployRequest.model_validate({"target": "prod"} | request))
        assert lease is not None
        await steps.take_snapshot(lease)
        await steps.rehearse(lease)
        await steps.ask(lease)
        await steps.apply_plan(lease)
        await steps.verify_schema(lease)
        await steps.succeed(lease)
        return lease


@pytest.fixture
def project(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Snapshots are dumps, restored into another database of the same server: the fastest way."""
    return configured(database, tmp_path, monkeypatch)


def configured(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project of a database, as the one that the settings name from now on."""
    root = folder / "project"
    (root / "migrations").mkdir(parents=True)
    (root / "airlock.toml").write_text(
        """
[targets.prod]
database_url_env = "PROD_URL"
[targets.prod.budget]
lock_timeout_ms = 60
tries = 3
pause_ms = 5
statement_timeout_s = 10
max_block_ms = 10000
[targets.prod.snapshot]
provider = "logical"
jobs = 1
[targets.prod.clone]
dev_url_env = "DEV_URL"
""",
        encoding="utf-8",
    )
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(root / "airlock.toml"))
    monkeypatch.setenv("PROD_URL", database.url)
    monkeypatch.setenv("DEV_URL", database.server.url())
    monkeypatch.setenv("AIRLOCK_REQUESTER", f"tests {os.getpid()}")
    return Project(root=root, database=database)


@pytest.fixture(scope="session")
def dead() -> str:
    """The name of a runner that has ended."""
    command = [sys.executable, "-c", "from airlock import holder; print(holder.name())"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
async def conn(project: Project) -> AsyncIterator[Conn]:
    """A connection to production as its owner."""
    async with connect(project.url) as found:
        yield found


def runner(project: Project, conn: Conn, lease: Lease, **more: object) -> Runner:
    return Runner(url=project.url, conn=conn, lease=lease, budget=BUDGET, **more)  # type: ignore[arg-type]
