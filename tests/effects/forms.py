"""The forms of statements whose effects are known for certain: run on real servers, and kept.

``make effects`` measures each form and writes docs/effects.md, which is the table that the tests
read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from airlock import syntax
from airlock.effects import Effect, LockMode, Prediction, World, needs_no_transaction, predict_one
from airlock.measure import Measurement
from airlock.postgres import Conn
from airlock.server import Server
from airlock.surroundings import read_world
from airlock.syntax import Statement
from tests.people import connect

HERE = Path(__file__).parent
WORLD = HERE / "world.sql"
FORMS = HERE / "forms.sql"
TABLE = HERE.parents[1] / "docs" / "effects.md"
TEMPLATE = "airlock_effects"
COPY = "airlock_effects_form"

# Takes AccessShareLock on whatever is there; what runs concurrently waits for it.
READ_ALL = """DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace = 'public'::regnamespace
    LOOP EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', t); END LOOP; END $$"""

IS_WAITING = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"

# The last locks of what runs outside a transaction are held for an instant; so they are seen.
LINGER = """CREATE FUNCTION linger() RETURNS event_trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_sleep(0.5); END';
CREATE EVENT TRIGGER linger ON ddl_command_end EXECUTE FUNCTION linger()"""

_BOUND = re.compile(r"-- (from|until) (\d+)\n")
_ROW = re.compile(r"\| `(?P<form>.*)` \| (?P<cells>.*) \|")
_WITH_SCHEMA = re.compile(r"\w+\.")

# (relation, lock, rewrites, scans)
Row = tuple[str | None, LockMode | None, bool | None, bool | None]


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
        whole = [*(f"{each.text};" for each in self.setting), self.statement.text]
        return " ".join(" ".join(whole).split())

    def exists_in(self, major: int) -> bool:
        return self.since <= major <= self.until


def forms(major: int | None = None) -> Iterator[Form]:
    """Every form of forms.sql that a version has, in its order."""
    part = ""
    for block in re.split(r"\n{2,}", FORMS.read_text(encoding="utf-8")):
        if block.startswith("## "):
            part = block.removeprefix("## ").strip()
        elif part and block.strip():
            bounds = dict(_BOUND.findall(block))
            *setting, statement = syntax.parse(block)
            form = Form(
                part=part,
                setting=tuple(setting),
                statement=statement,
                since=int(bounds.get("from", 0)),
                until=int(bounds.get("until", 99)),
            )
            if major is None or form.exists_in(major):
                yield form


# ---------------------------------------------------------------- rows


def rows(effects: Iterable[Effect]) -> list[Row]:
    """Effects as the table keeps them, by relation."""
    found = [(each.relation, each.lock, each.rewrites, each.scans) for each in effects]
    return sorted(found, key=lambda row: str(row[0]))


def disagreements(prediction: Prediction, measured: Sequence[Row]) -> list[str]:
    """Where the prediction and the server part. What is said to be unknown agrees with anything."""
    predicted = {row[0]: row for row in rows(prediction.effects) if row[0] is not None}
    found = {row[0]: row for row in measured}
    wrong = [
        f"predicted {show([predicted[name]])}, measured {show([found[name]]) or 'nothing'}"
        for name in predicted.keys() & found.keys()
        if any(
            said is not None and said != was
            for said, was in zip(predicted[name], found[name], strict=True)
        )
    ]
    wrong += [f"predicted {show([predicted[name]])}" for name in predicted.keys() - found.keys()]
    missed = found.keys() - predicted.keys() if not prediction.unknown else ()
    return wrong + [f"measured {show([found[name]])}" for name in missed]


def show(found: Iterable[Row]) -> str:
    """Rows as one reads them: ``deals AccessExclusiveLock rewritten scanned``."""
    return ", ".join(
        " ".join(
            [
                str(name).removeprefix("public."),
                lock.pg_name if lock is not None else "?",
                *(["rewritten"] if rewrites else []),
                *(["scanned"] if scans else []),
            ]
        )
        for name, lock, rewrites, scans in found
    )


def _read(text: str) -> list[Row]:
    found: list[Row] = []
    for each in text.split(", ") if text != "nothing" else ():
        name, lock, *more = each.split()
        mode = LockMode.from_pg_name(lock)
        name = name if _WITH_SCHEMA.match(name) else f"public.{name}"
        found.append((name, mode, "rewritten" in more, "scanned" in more))
    return found


# ---------------------------------------------------------------- the table

Table = Mapping[str, Mapping[int, list[Row]]]


def read_table() -> Table:
    """What was measured: by form and major version."""
    found: dict[str, dict[int, list[Row]]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else ():
        match = _ROW.fullmatch(line)
        for cell in match["cells"].split("<br>") if match else ():
            versions, _, effects = cell.partition(": ")
            for version in versions.split():
                form = match["form"].replace("\\|", "|")
                found.setdefault(form, {})[int(version)] = _read(effects)
    return found


def write_table(measured: Table, servers: Sequence[str]) -> None:
    """docs/effects.md, from what was measured."""
    lines = [TITLE.format(servers=", ".join(servers))]
    part = ""
    for form in forms():
        if form.part != part:
            part = form.part
            lines += ["", f"## {part}", "", "| statement | locks on what was there |", "|---|---|"]
        cells: dict[str, list[str]] = {}
        for version, effects in sorted(measured.get(form.text, {}).items()):
            cells.setdefault(show(effects) or "nothing", []).append(str(version))
        shown = "<br>".join(f"{' '.join(found)}: {effects}" for effects, found in cells.items())
        lines.append(f"| `{form.text.replace('|', chr(92) + '|')}` | {shown} |")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


TITLE = """# What each form of statement does

Written by `make effects`, which ran each form on {servers}, each on a small database of its own
([its tables](../tests/effects/world.sql), [the forms](../tests/effects/forms.sql)). Before a colon
stand the versions that did the same. *Rewritten*: a new file; *scanned*: read as a whole.
`airlock effects` predicts the same for your statements and your tables, and a test fails where the
two disagree. A dropped or rebuilt index of `REINDEX CONCURRENTLY` is locked once more when nobody
uses it any more, which is not counted."""


# ---------------------------------------------------------------- on a server


async def prepare(server: Server) -> None:
    """The database from which each form's own is copied."""
    async with connect(server.url()) as conn:
        await conn.execute(f"CREATE DATABASE {TEMPLATE}")
    async with connect(server.url(TEMPLATE)) as conn:
        await conn.execute(WORLD.read_text(encoding="utf-8"))
        await conn.execute("VACUUM ANALYZE")


@asynccontextmanager
async def _copy(server: Server) -> AsyncIterator[str]:
    async with connect(server.url()) as conn:
        await conn.execute(f"CREATE DATABASE {COPY} TEMPLATE {TEMPLATE}")
        try:
            yield server.url(COPY)
        finally:
            await conn.execute(f"DROP DATABASE {COPY} (FORCE)")


async def measure(server: Server, form: Form) -> tuple[list[Row], Prediction]:
    """What the form's statement did on a database of its own, and what was predicted there."""
    async with _copy(server) as url, connect(url) as conn:
        for each in form.setting:
            await conn.execute(each.text)
        predicted = predict_one(form.statement, await read_world(conn))
        measured = Measurement(url=url)
        if needs_no_transaction(form.statement):
            await _alone(url, conn, measured, form.statement)
        else:
            async with conn.transaction():
                await measured.execute(conn, form.statement)
    (found,) = measured.take()
    return rows(found.effects), predicted


async def _alone(url: str, conn: Conn, measured: Measurement, statement: Statement) -> None:
    """Run it while a reader of all tables is open: it waits, so that its locks are seen."""
    await conn.execute(LINGER)
    pid = conn.get_server_pid()
    async with connect(url) as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute(READ_ALL)
        work = asyncio.create_task(measured.execute(conn, statement))
        while not work.done() and not await reader.fetchval(IS_WAITING, pid):
            await asyncio.wait([work], timeout=0.01)
        await asyncio.wait([work], timeout=0.2)
        await transaction.rollback()
        await work


# ---------------------------------------------------------------- without a server

# How many rows world.sql puts in; the others are empty.
SIZES = {
    "public.companies": 500,
    "public.deals": 20_000,
    "public.notes": 20_000,
    "public.prices": 500,
    "public.plain": 500,
    "public.checks": 500,
    "public.identities": 500,
    "public.events_2024": 365,
    "public.events_2025": 335,
    "public.events_2026": 300,
    "public.to_pk": 1,
}


def world(form: Form, major: int) -> World:
    """What the form meets, from the text of world.sql and of its setting alone."""
    found = World(major=major, time_zone="UTC")
    for each in (*syntax.parse(WORLD.read_text(encoding="utf-8")), *form.setting):
        found.apply(each)
    for relation in found.relations.values():
        relation.new = False
        relation.rows = SIZES.get(relation.key, 0)
    for index in found.indexes.values():
        index.new = False
    found.complete = True
    return found
