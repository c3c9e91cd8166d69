"""The catalogue of a live database, and the cheap guard that says whether to read it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import cache

import asyncpg

from airlock.catalogue import Catalogue, Json
from airlock.errors import Transient
from airlock.postgres import CATALOGUE_S, Conn, query, within
from airlock.rendering import settled

# The kinds with many objects have a query each, for speed.
QUERIES = (
    "catalogue_relation",
    "catalogue_column",
    "catalogue_constraint",
    "catalogue_index",
    "catalogue_routine",
    "catalogue_type",
    "catalogue_rule",
    "catalogue_other",
)

# What the server's renderings depend on. Names outside pg_catalog come out qualified, and constants
# read the same whatever the session, the role or the database has set.
_PINNED = {
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "'off'",
    "standard_conforming_strings": "'on'",
    "DateStyle": "'ISO, YMD'",
    "IntervalStyle": "'postgres'",
    "TimeZone": "'UTC'",
    "extra_float_digits": "'3'",
    "bytea_output": "'hex'",
    "lc_monetary": "'C'",
    "xmloption": "'content'",
    # Its compilation costs more than these queries take.
    "jit": "'off'",
}
_PIN = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _PINNED.items())

# Attributes that hold expressions as the server renders them, but not the text of a routine.
_EXPRESSIONS = {"definition", "default", "generated"}
_BODIES = ("function ", "procedure ", "aggregate ")

_SINCE = re.compile(r" -- (\d\d)$")


async def read_catalogue(conn: Conn) -> Catalogue:
    """The whole schema of the database, as one moment saw it.

    Inside a transaction the caller's isolation applies, its own uncommitted changes are seen, and
    it is left as it was. Any role may read it.
    Raises Transient when somebody dropped an object while it was read.
    """
    objects: dict[str, dict[str, Json]] = {}
    async with _pinned(conn):
        for name in QUERIES:
            try:
                rows = await conn.fetch(for_version(query(name), conn.get_server_version().major))
            except asyncpg.InternalServerError as error:
                # The rendering functions look past our snapshot, at what exists by now.
                raise Transient(
                    f"The schema was being changed while it was read: {error}. "
                    "Expected was one that stands still; read it again."
                ) from error
            objects.update(_objects(rows))
    return Catalogue(objects=objects)


async def read_guard(conn: Conn) -> str:
    """A hash that is the same only while the catalogue is: the cheap question before the dear one.

    Same guard, same catalogue; a different guard says nothing but "read the catalogue". It sums
    row versions of the catalogue tables, so it holds for one database of one server, not for a
    copy. It differs without a change of schema after what rewrites a catalogue row: TRUNCATE,
    REINDEX, CLUSTER, VACUUM FULL, a refresh of a materialised view, a change undone again. It
    misses what changes no such row: a superuser's change to a built-in object, which is not in the
    catalogue either, or somebody who edits catalogue tables and forges xmin and ctid.
    Read it before the catalogue, so that a change in between shows the next time.
    """
    async with _pinned(conn):
        rows = await conn.fetch(for_version(query("guard"), conn.get_server_version().major))
    text = "\n".join(f"{row['source']} {row['versions']}" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def for_version(sql: str, major: int) -> str:
    """The query without the lines marked for a later PostgreSQL (``-- 18`` at the end)."""
    lines = sql.splitlines()
    return "\n".join(
        line for line in lines if not ((since := _SINCE.search(line)) and int(since[1]) > major)
    )


@asynccontextmanager
async def _pinned(conn: Conn) -> AsyncGenerator[None]:
    """One consistent read-only view with the settings above, and nothing left behind.

    Written out, because asyncpg refuses to nest in a transaction that was begun by hand. Always
    rolled back: there is nothing to keep, and inside a transaction that restores the settings.
    """
    if conn.is_in_transaction():
        begin = "SAVEPOINT airlock_catalogue"
        end = "ROLLBACK TO SAVEPOINT airlock_catalogue; RELEASE SAVEPOINT airlock_catalogue"
    else:
        begin, end = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "ROLLBACK"
    await conn.execute(begin)
    try:
        await conn.execute(_PIN)
        # Every row of the catalogue is read, and there may be a hundred thousand tables.
        with within(conn, CATALOGUE_S):
            yield
    finally:
        if not conn.is_closed():
            await conn.execute(end)


def _objects(rows: Iterable[asyncpg.Record]) -> Iterable[tuple[str, dict[str, Json]]]:
    for row in rows:
        found: dict[str, Json] = {name: value for name, value in row.items() if value is not None}
        key = str(found.pop("key"))
        if (more := found.pop("attributes", None)) is not None:
            found |= json.loads(str(more))
        if not key.startswith(_BODIES):
            for name in found.keys() & _EXPRESSIONS:
                if isinstance(text := found[name], str):
                    found[name] = settled(text)
        yield key, found
