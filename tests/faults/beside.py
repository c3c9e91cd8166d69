"""Faults that are no signal to the flow: the database's connections, its server, other people."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from airlock import ledger
from airlock.service import table
from tests.faults.theatre import DURING, ENDS, RELEASES, Case, NotStruck, Theatre

INDEX = "apply_plan: 012_offers.sql, before its effect"
INDEX_BACK = "roll_back: ROLLBACK NOTES of 012_offers, before its effect"
BATCH = "apply_plan: 013_fill.sql, after a batch's COMMIT #3"
COLUMN_BACK = "roll_back: ROLLBACK NOTES of 011_score, before its COMMIT"
_APPLIES = ("airlock ledger", "airlock lock", "airlock apply%")
_UNDOES = ("airlock ledger", "airlock lock", "airlock rollback%")
_INVALID = "SELECT EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)"
_OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE $1"
)
# One kind of our sessions, and where it has work to do.
_KINDS = (
    *(("forwards", "apply_plan: 011_score.sql, before its COMMIT", kind) for kind in _APPLIES),
    *(("forwards", INDEX, kind) for kind in _APPLIES),
    *(
        ("rollback", "roll_back: ROLLBACK NOTES of 011_score, before its COMMIT", kind)
        for kind in _UNDOES
    ),
)
# A machine that stood still: the server has given up its lock, or every session of it.
_PAUSED = (
    ("apply_plan: before the intent", "airlock%"),
    ("apply_plan: before applying", "airlock lock"),
    ("apply_plan: 011_score.sql, before its COMMIT", "airlock lock"),
    ("apply_plan: 011_score.sql, after its COMMIT", "airlock%"),
    ("restart_service: before the intent", "airlock%"),
)
_SILENT = "UPDATE airlock.deploy SET heartbeat_at = heartbeat_at - interval '1 minute'"


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
    again = "SIGKILL while an index is built, and the same deploy again"
    yield _case(again, "forwards, apply_plan", _killed_and_again, {"succeeded"})
    play = partial(_stopped_and_again, BATCH)
    filling = "SIGKILL between two batches, and the same deploy again"
    yield _case(filling, "forwards, apply_plan", play, {"succeeded"})
    for scenario, point, kind in _KINDS:
        name = kind.removeprefix("airlock ").removesuffix("%")
        yield Case(
            name=f"the session of its {name} ended / {scenario} / {point}",
            fault=f"the session of its {name} ended",
            where=f"{DURING[scenario]} {point.partition(': ')[0]}",
            play=partial(_cut_one, RELEASES[scenario], point, kind),
        )
    yield _case("the session of its base backup ended", "forwards, take_snapshot", _cut_backup)
    for point, lost in _PAUSED:
        yield Case(
            name=f"a paused runner goes on after it was taken over / forwards / {point}",
            fault="a paused runner goes on after it was taken over",
            where=f"forwards, {point.partition(': ')[0]}",
            play=partial(_paused, point, lost),
        )


def _case(fault: str, where: str, play, ends: set[str] | None = None) -> Case:
    return Case(
        name=f"{fault} / {where}",
        fault=fault,
        where=where.partition(": ")[0],
        play=play,
        ends=frozenset(ends or ENDS),
    )


async def cut(release: str, point: str, theatre: Theatre) -> None:
    """Every session of ours is ended by the server at one point."""
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release=release)
    await theatre.reached(fault, child)
    await end_sessions(theatre, "airlock%")
    theatre.go(fault)
    await child.wait()


async def _cut_one(release: str, point: str, kind: str, theatre: Theatre) -> None:
    """One of them only; the others go on."""
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release=release)
    await theatre.reached(fault, child)
    await end_sessions(theatre, kind)
    theatre.go(fault)
    await child.wait()


async def end_sessions(theatre: Theatre, kind: str) -> None:
    """The server ends our sessions whose names fit. Raises when there is none."""
    async with somebody(theatre) as conn:
        ended = await conn.fetch(_OURS, kind)
    assert ended, f"there is no session {kind!r}"


async def _cut_backup(theatre: Theatre) -> None:
    """pg_basebackup loses the server in the middle of its work."""
    child = await theatre.start("deploy", release="v2")
    async with somebody(theatre) as conn:
        while not await conn.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'walsender' AND query LIKE 'BASE_BACKUP%'"
        ):
            if table.read(child.pid) is None:
                raise NotStruck("no fault: no base backup was seen")
            await asyncio.sleep(0.005)
    await child.wait()


async def _paused(point: str, lost: str, theatre: Theatre) -> None:
    """A machine stands still, its deploy is taken over, and then it goes on as if nothing was."""
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    os.kill(child.pid, signal.SIGSTOP)
    await end_sessions(theatre, lost)
    if "before its COMMIT" in point:
        # Its transaction has the deploy's row.
        await asyncio.sleep(ledger.SILENT_S + 1)
    else:
        async with somebody(theatre) as conn:
            await conn.execute(_SILENT)
    taken_over = await theatre.recover()
    theatre.go(fault)
    os.kill(child.pid, signal.SIGCONT)
    await child.wait()
    assert taken_over, "nobody could take the deploy over while its runner was paused"


async def _killed_in_the_index(theatre: Theatre) -> None:
    async with _killed_within_the_index(theatre) as held:
        recovering = asyncio.create_task(theatre.recover())
        await asyncio.sleep(4)
        await held.rollback()
        await recovering


async def _stopped_and_again(point: str, theatre: Theatre) -> None:
    await theatre.deploy("v2", theatre.fault("kill", point))
    await theatre.deploy("v2")


async def _killed_and_again(theatre: Theatre) -> None:
    """Whoever asks for the same again gets it: the half index is no hindrance."""
    async with _killed_within_the_index(theatre) as held:
        await end_sessions(theatre, "airlock apply%")
        await held.rollback()
    await theatre.deploy("v2")


@asynccontextmanager
async def _killed_within_the_index(
    theatre: Theatre,
) -> AsyncGenerator[asyncpg.transaction.Transaction]:
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
        yield held


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
