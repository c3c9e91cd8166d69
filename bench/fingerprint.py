"""The whole catalogue and its fingerprint beside ``pg_dump -s``; the guard beside the catalogue."""

from __future__ import annotations

import time

from airlock import binaries
from airlock.introspection import read_catalogue, read_guard
from airlock.server import Server
from bench import stage
from bench.rounds import Row, Setting, interleaved, median, program, spread
from tests.people import connect

# A table as applications have them: keys, a check, defaults, two indexes, comments.
TABLE = """
CREATE TABLE entity_{n} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent_id bigint REFERENCES entity_{parent} (id),
    name varchar(255) NOT NULL,
    details jsonb NOT NULL DEFAULT '{{}}',
    amount numeric(12, 2) CHECK (amount >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX entity_{n}_name ON entity_{n} (name);
COMMENT ON TABLE entity_{n} IS 'Entity {n}';
COMMENT ON COLUMN entity_{n}.details IS 'What else is known';
"""
BATCH = 100
NAME = "many_tables"


async def run(setting: Setting) -> list[Row]:
    tables = 200 if setting.quick else 5_000
    # What is measured only reads; without fsync the tables are there sooner.
    async with stage.scratch(binaries.find(), setting.folder) as server:
        await stage.create_database(server, NAME)
        await _create(server, tables, setting)
        contestants = {
            "catalogue and fingerprint": lambda: _catalogue(server),
            "guard": lambda: _guard(server),
            "pg_dump -s": lambda: _pg_dump(server, setting),
        }
        got = await interleaved(contestants, rounds=setting.times(7), say=setting.say)
    return _rows(tables, *got.values())


def _rows(tables: int, ours: list[float], guard: list[float], peer: list[float]) -> list[Row]:
    shown = f"{tables:,} tables"
    dump_ratio, guard_ratio = median(peer) / median(ours), median(ours) / median(guard)
    return [
        Row(
            what=f"catalogue and fingerprint, {shown}",
            ours=median(ours),
            peer=median(peer),
            peer_name="pg_dump -s",
            must="ratio ≥ 1",
            holds=dump_ratio >= 1,
            note=f"ours {spread(ours)}, pg_dump {spread(peer)}",
        ),
        Row(
            what=f"guard, {shown}",
            ours=median(guard),
            peer=median(ours),
            peer_name="our catalogue and fingerprint",
            must="ratio ≥ 5",
            holds=guard_ratio >= 5,
            note=f"guard {spread(guard)}",
        ),
    ]


async def _create(server: Server, tables: int, setting: Setting) -> None:
    async with connect(server.url(NAME, stage.OWNER)) as conn:
        for first in range(0, tables, BATCH):
            setting.say(f"creating tables: {first} of {tables}")
            numbers = range(first, min(first + BATCH, tables))
            await conn.execute("".join(TABLE.format(n=n, parent=n // 2) for n in numbers))
    async with connect(server.url(NAME)) as superuser:
        await superuser.execute("VACUUM ANALYZE")


# Each on a new connection, as pg_dump is: the server's caches of the catalogue start empty.


async def _catalogue(server: Server) -> float:
    began = time.monotonic()
    async with connect(server.url(NAME, stage.OWNER)) as conn:
        assert (await read_catalogue(conn)).fingerprint
    return time.monotonic() - began


async def _guard(server: Server) -> float:
    began = time.monotonic()
    async with connect(server.url(NAME, stage.OWNER)) as conn:
        assert await read_guard(conn)
    return time.monotonic() - began


async def _pg_dump(server: Server, setting: Setting) -> float:
    address = server.url(NAME, stage.OWNER)
    goal = setting.folder / "schema.sql"
    tool = str(server.binaries.tool("pg_dump"))
    seconds, _ = await program([tool, "--schema-only", f"--dbname={address}", f"--file={goal}"])
    goal.unlink()
    return seconds
