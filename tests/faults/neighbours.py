"""Others who use the same database: a dump of theirs, a forgotten transaction, a change by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial

from airlock import binaries
from tests.faults.beside import somebody, until_true
from tests.faults.theatre import Case, Theatre

# The first try for each lock is over by then, the last one is not.
_HELD_S = 2.0
_READING = "BEGIN; LOCK TABLE deals IN ACCESS SHARE MODE"
# What a run that needs a person exits with.
_STRANDED = 3


def cases() -> Iterator[Case]:
    for said, point, held_s, ends in (
        ("a while", "010_halt_monitoring.sql, after its COMMIT", _HELD_S, {"succeeded"}),
        ("from before to the end", "after the intent", None, {"failed", "rolled_back"}),
    ):
        yield _case(
            f"somebody is idle in transaction, {said}",
            "forwards, apply_plan",
            partial(_idle_in_transaction, f"apply_plan: {point}", held_s),
            ends,
        )
    for_good = "somebody is idle in transaction, and keeps the way back waiting"
    yield _case(for_good, "during rollback, roll_back", _idle_for_good, {"rolled_back"})
    yield _case(
        "a foreign pg_dump runs", "forwards, apply_plan", _dumped, {"succeeded", "rolled_back"}
    )
    yield _case(
        "somebody alters the schema meanwhile", "forwards, apply_plan", _altered, {"failed"}
    )


def _case(fault: str, where: str, play, ends: set[str]) -> Case:
    return Case(
        name=f"{fault} / {where}", fault=fault, where=where, play=play, ends=frozenset(ends)
    )


async def _idle_in_transaction(point: str, held_s: float | None, theatre: Theatre) -> None:
    """They read a table that a migration alters, and went to lunch."""
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    async with somebody(theatre) as conn:
        await conn.execute(_READING)
        theatre.go(fault)
        if held_s is None:
            await child.wait()
        else:
            await asyncio.sleep(held_s)
    await child.wait()


async def _idle_for_good(theatre: Theatre) -> None:
    """Neither way can be gone: a person is called, ends that session, and rolls back."""
    fault = theatre.fault("wait", "apply_plan: 010_halt_monitoring.sql, after its COMMIT")
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    async with somebody(theatre) as conn:
        await conn.execute(_READING)
        theatre.go(fault)
        assert await child.wait() == _STRANDED, "no person was called"
    again = await theatre.start("rollback", reason="they are back from lunch")
    assert await again.wait() == 0, "the rollback by hand did not end well"


async def _dumped(theatre: Theatre) -> None:
    """Whoever takes it is slow, so its locks are there for a while when a migration comes."""
    point = "apply_plan: 010_halt_monitoring.sql, after its COMMIT"
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    ours, theirs = os.pipe()
    dump = await asyncio.create_subprocess_exec(
        *(binaries.find().tool("pg_dump"), "--dbname", theatre.stage.superuser_url),
        env={**os.environ, "PGAPPNAME": "theirs"},
        stdout=theirs,
    )
    os.close(theirs)
    async with somebody(theatre) as conn:
        await until_true(
            conn,
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE"
            " application_name = 'theirs' AND datname = current_database()"
            " AND relation = to_regclass('deals'))",
        )
    theatre.go(fault)
    await asyncio.sleep(_HELD_S)
    with open(ours, "rb") as taken:  # noqa: ASYNC230, PTH123 – a number; read in a thread
        await asyncio.to_thread(taken.read)
    assert await dump.wait() == 0, "their dump failed"
    await child.wait()


async def _altered(theatre: Theatre) -> None:
    """Between the rehearsal and the apply. They take it back later."""
    fault = theatre.fault("wait", "apply_plan: after the intent")
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    async with somebody(theatre) as conn:
        await conn.execute("ALTER TABLE deals ADD COLUMN theirs text")
        theatre.go(fault)
        await child.wait()
        await conn.execute("ALTER TABLE deals DROP COLUMN theirs")
