"""Faults that are no signal to the flow: the database's connections, its server, other people."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from tests.faults.theatre import RELEASES, Case, Theatre

INDEX = "apply_plan: 012_offers.sql, before its effect"
INDEX_BACK = "roll_back: ROLLBACK NOTES of 012_offers, before its effect"
_INVALID = "SELECT EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)"
_OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'airlock%'"
)


@asynccontextmanager
async def somebody(theatre: Theatre) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
    """A session that is not Airlock's."""
    conn = await asyncpg.connect(theatre.stage.superuser_url)
    try:
        yield conn
    finally:
        await conn.close()


async def until_true(conn: asyncpg.Connection[asyncpg.Record], query: str) -> None:
    """Somebody else makes it so. The deadline is the case's."""
    while not await conn.fetchval(query):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def cases() -> Iterator[Case]:
    """Those that are no matter of a point."""
    yield _case("SIGKILL while an index is built", "forwards, apply_plan", _killed_in_the_index)
    for point in (INDEX, "apply_plan: 011_score.sql, before its COMMIT"):
        play = partial(_server_falls, "forwards", point)
        yield _case("PostgreSQL stopped at once", f"forwards, {point}", play)
    play = partial(_server_falls, "rollback", INDEX_BACK)
    yield _case("PostgreSQL stopped at once", f"during rollback, {INDEX_BACK}", play)
    yield _case("two deploys at once", "forwards, apply_plan", _two_at_once)


def _case(fault: str, where: str, play) -> Case:
    return Case(name=f"{fault} / {where}", fault=fault, where=where.partition(": ")[0], play=play)


async def cut(release: str, point: str, theatre: Theatre) -> None:
    """Every session of ours is ended by the server at one point."""
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release=release)
    await theatre.reached(fault, child)
    async with somebody(theatre) as conn:
        await conn.execute(_OURS)
    theatre.go(fault)
    await child.wait()


async def _killed_in_the_index(theatre: Theatre) -> None:
    fault = theatre.fault("wait", INDEX)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    async with somebody(theatre) as conn, somebody(theatre) as watcher:
        held = conn.transaction()
        await held.start()
        # The build waits for every writer, with its index there and invalid.
        await conn.execute("LOCK TABLE deals IN ROW EXCLUSIVE MODE")
        theatre.go(fault)
        await until_true(watcher, _INVALID)
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        recovering = asyncio.create_task(theatre.recover())
        await asyncio.sleep(4)
        await held.rollback()
        await recovering


async def _server_falls(scenario: str, point: str, theatre: Theatre) -> None:
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release=RELEASES[scenario])
    await theatre.reached(fault, child)
    await theatre.house.fall()
    theatre.go(fault)
    await asyncio.sleep(2)
    await theatre.house.rise()
    await child.wait()


async def _two_at_once(theatre: Theatre) -> None:
    fault = theatre.fault("wait", "apply_plan: after applying")
    first = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, first)
    status = await theatre.deploy("v2")
    if status != 1:
        raise AssertionError(f"the second deploy was not refused: it ended with {status}")
    theatre.go(fault)
    await first.wait()
