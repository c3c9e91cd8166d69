"""The forms of statements whose effects are known for certain: run on real servers, and kept."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from airlock import syntax
from airlock.effects import Effect, needs_no_transaction, predict_one
from airlock.measure import Measurement
from airlock.postgres import Conn, connect, quote_ident
from airlock.server import Server
from airlock.surroundings import read_world
from airlock.syntax import Statement

HERE = Path(__file__).parent
WORLD = HERE / "world.sql"
FORMS = HERE / "forms.sql"
TABLE = HERE / "table.json"
TEMPLATE = "airlock_effects"

_BOUND = re.compile(r"-- (from|until) (\d+)\n")

# Takes AccessShareLock on whatever is there; what runs concurrently waits for it.
READ_ALL = """DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace = 'public'::regnamespace
    LOOP EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', t); END LOOP; END $$"""

# The last locks of what runs outside a transaction are held for an instant; so they are seen.
LINGER = """CREATE FUNCTION linger() RETURNS event_trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_sleep(0.03); END';
CREATE EVENT TRIGGER linger ON ddl_command_end EXECUTE FUNCTION linger()"""

# (relation, lock, rewrites, scans), as the table has them
Row = tuple[str | None, str | None, bool | None, bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One statement with what stands before it. since, until: the major versions that have it."""

    part: str
    setting: tuple[Statement, ...]
    statement: Statement
    since: int
    until: int

    @property
    def text(self) -> str:
        """All of it on one line; what the table calls it."""
        return (
            " ".join(f"{each.text};" for each in self.setting)
            + " " * bool(self.setting)
            + (" ".join(self.statement.text.split()))
        )

    @property
    def alone(self) -> bool:
        return needs_no_transaction(self.statement)

    def exists_in(self, major: int) -> bool:
        return self.since <= major <= self.until


def forms() -> Iterator[Form]:
    """Every form of forms.sql, in its order."""
    part = ""
    for block in re.split(r"\n{2,}", FORMS.read_text(encoding="utf-8")):
        if block.startswith("## "):
            part = block.removeprefix("## ").strip()
        elif part and block.strip():
            bounds = dict(_BOUND.findall(block))
            *setting, statement = syntax.parse(block)
            yield Form(
                part=part,
                setting=tuple(setting),
                statement=statement,
                since=int(bounds.get("from", 0)),
                until=int(bounds.get("until", 99)),
            )


def table() -> Mapping[str, Mapping[str, list[Row]]]:
    """What was measured: by form and major version."""
    found = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        form: {major: [tuple(row) for row in rows] for major, rows in versions.items()}
        for form, versions in found.items()
    }


def rows(effects: tuple[Effect, ...]) -> list[Row]:
    """Effects as the table keeps them."""
    found = [
        (each.relation, each.lock.pg_name if each.lock else None, each.rewrites, each.scans)
        for each in effects
    ]
    return sorted(found, key=lambda row: str(row[0]))


async def prepare(server: Server) -> None:
    """The database from which each form's own is copied."""
    async with connect(server.url()) as conn:
        await conn.execute(f"CREATE DATABASE {TEMPLATE}")
    async with connect(server.url(TEMPLATE)) as conn:
        await conn.execute(WORLD.read_text(encoding="utf-8"))
        await conn.execute("VACUUM ANALYZE")


@asynccontextmanager
async def _copy(server: Server) -> AsyncIterator[str]:
    name = quote_ident("airlock_effects_form")
    async with connect(server.url()) as conn:
        await conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield server.url("airlock_effects_form")
        finally:
            await conn.execute(f"DROP DATABASE {name} (FORCE)")


async def measure(server: Server, form: Form) -> tuple[list[Row], list[Row]]:
    """What the form's statement did on a database of its own, and what was predicted there."""
    async with _copy(server) as url, connect(url) as conn:
        for each in form.setting:
            await conn.execute(each.text)
        predicted = predict_one(form.statement, await read_world(conn)).effects
        measured = Measurement(url=url)
        if form.alone:
            await _alone(url, conn, measured, form.statement)
        else:
            async with conn.transaction():
                await measured.execute(conn, form.statement)
    (found,) = measured.take()
    return rows(found.effects), rows(predicted)


async def _alone(url: str, conn: Conn, measured: Measurement, statement: Statement) -> None:
    """Run it while a reader of all tables is open for a moment: it waits, and its locks are seen."""
    await conn.execute(LINGER)
    async with connect(url) as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute(READ_ALL)
        work = asyncio.create_task(measured.execute(conn, statement))
        await asyncio.wait([work], timeout=0.1)
        await transaction.rollback()
        await work
