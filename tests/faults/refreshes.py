"""A refresh of staging, which takes its rows from production while production is deployed to."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from airlock import ledger, settings
from airlock.postgres import quote_ident
from tests.faults.theatre import Case, Theatre
from tests.people import connect
from tests.stage import TRACKER

_STAGING = """
[targets.staging]
database_url_env = "STAGING_DATABASE_URL"
[targets.staging.refresh]
source = "prod"
admin_url_env = "ADMIN_URL"
key_env = "MASK_KEY"
keep = 0
[targets.staging.alerts]
webhook_url_env = "PROD_SLACK_URL"
"""
# Where the refresh is when production is deployed to, and when it is killed afterwards.
_POINTS = {
    "before the copy": "mask: before the intent",
    "before the swap": "before the swap",
    "in the swap": "in the swap",
    "after the swap": "after the swap",
}


def cases() -> Iterator[Case]:
    yield Case(
        name="a refresh of staging takes its snapshot / forwards, lock",
        fault="a refresh of staging takes its snapshot",
        where="forwards, lock",
        play=_refused,
        ends=frozenset({"not begun"}),
    )
    for said, point in _POINTS.items():
        for kind in ("killed", "its sessions ended"):
            fault = f"a refresh of staging is {kind} {said}"
            fault = fault.replace("is its", "has its")
            yield Case(
                name=f"{fault} / beside a deploy",
                fault=fault,
                where="beside a deploy",
                play=partial(_cut_off, point, kind),
                ends=frozenset({"succeeded"}),
            )
    yield Case(
        name="a refresh of staging begins at the same time / forwards, all steps",
        fault="a refresh of staging begins at the same time",
        where="forwards, all steps",
        play=_together,
        ends=frozenset({"succeeded", "not begun"}),
    )


async def _refused(theatre: Theatre) -> None:
    """Both want the lock of production; whoever is second hears so, and nothing was begun."""
    async with _staging(theatre) as staging:
        fault = theatre.fault("wait", "restore_staging: before the snapshot's files")
        refresh = await theatre.start("refresh", fault, target="staging", fresh_snapshot=True)
        await theatre.reached(fault, refresh)
        deployed = await theatre.deploy("v2")
        theatre.go(fault)
        assert deployed == 1, f"the deploy was not refused: it ended with {deployed}"
        assert await refresh.wait() == 0, "the refresh failed"
        await staging.judge("succeeded")


async def _cut_off(point: str, kind: str, theatre: Theatre) -> None:
    """Production is none of its business; staging is its copy as a whole, or as it was."""
    async with _staging(theatre) as staging:
        fault = theatre.fault("wait", point)
        refresh = await theatre.start("refresh", fault, target="staging", fresh_snapshot=True)
        await theatre.reached(fault, refresh)
        await theatre.deploy("v2")
        if kind == "killed":
            os.kill(refresh.pid, signal.SIGKILL)
        else:
            await staging.end_sessions()
            theatre.go(fault)
        await refresh.wait()
        await theatre.recover(target="staging")
        await staging.judge("succeeded", "failed", "rolled_back")


async def _together(theatre: Theatre) -> None:
    async with _staging(theatre) as staging:
        refresh = await theatre.start("refresh", target="staging", fresh_snapshot=True)
        await theatre.deploy("v2")
        await refresh.wait()
        await staging.judge("succeeded", "failed", "not begun")


class _Staging:
    """The database that is refreshed, and what must be true of it afterwards."""

    def __init__(self, theatre: Theatre, name: str) -> None:
        self.name, self._pg = name, theatre.house.pg

    async def end_sessions(self) -> None:
        """The server ends what is in it, in its copies, and who makes them."""
        async with connect(self._pg.url()) as conn:
            await conn.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                " pid <> pg_backend_pid() AND application_name LIKE 'airlock%'"
                " AND (starts_with(datname, $1) OR datname = 'postgres')",
                self.name,
            )

    async def judge(self, *states: str) -> None:
        """Raises AssertionError unless it is masked production, or as it was, and nothing else."""
        async with ledger.connection(settings.target("staging")) as conn:
            rows = [row for row in await ledger.recent(conn) if row.id > 1]
            state = rows[0].state if rows else "not begun"
            old = await conn.fetchval("SELECT bool_and(exchange = 'STAGING') FROM public.tickers")
        assert state in states, f"staging ended as {state}"
        assert old is (state != "succeeded"), f"staging ended as {state}, and is the other one"
        async with connect(self._pg.url()) as superuser:
            found = [row["datname"] for row in await self._databases(superuser)]
        assert found == [self.name], f"databases of staging left over: {found}"

    async def _databases(
        self, superuser: asyncpg.Connection[asyncpg.Record]
    ) -> list[asyncpg.Record]:
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1"
        return await superuser.fetch(query, self.name)

    async def drop(self) -> None:
        async with connect(self._pg.url()) as superuser:
            for row in await self._databases(superuser):
                name = quote_ident(row["datname"])
                await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def _staging(theatre: Theatre) -> AsyncGenerator[_Staging]:
    """A second target, without a service, on the same server."""
    pg, name = theatre.house.pg, f"staging_{theatre.stage.port}"
    async with connect(pg.url()) as superuser:
        base = quote_ident(theatre.house.base)
        await superuser.execute(f"CREATE DATABASE {name} OWNER owner TEMPLATE {base}")
    made = _Staging(theatre, name)
    known = {
        "STAGING_DATABASE_URL": pg.url(name, "owner"),
        "ADMIN_URL": pg.url("postgres"),
        "MASK_KEY": "a key that is long enough for a mask of rows",
    }
    theatre.also.update(known)
    os.environ.update(known)
    theatre.stage.add(_STAGING + _rules())
    try:
        async with connect(pg.url(name)) as superuser:
            await superuser.execute("UPDATE tickers SET exchange = 'STAGING'")
        yield made
    finally:
        await made.drop()
        for variable in known:
            del theatre.also[variable], os.environ[variable]


def _rules() -> str:
    text = (TRACKER / "mask.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)
    return text.replace("\n[", "\n[targets.staging.mask.")
