"""Rows from a clone into a new database through the masks, and the proof that nothing slipped by.

The masks are computed in the clone, by the query of a COPY, so the new database's server is sent
masked values and nothing else. Decision 9 says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from airlock import masking, postgres
from airlock.errors import AirlockError, Refused
from airlock.masking import PATTERNS, Column, ColumnMask, ForeignKey, Pattern, Table, TableMask
from airlock.postgres import Conn, query, quote_ident, quote_literal

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

SHORTEST_KEY = 16

# Both sides write and read values the same way, whatever the roles and databases have set.
_PINNED = """
SET search_path = pg_catalog, pg_temp; SET row_security = off; SET statement_timeout = 0;
SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex';
SET lc_monetary = 'C'; SET xmloption = 'content'; SET jit = off; SET work_mem = '64MB'
"""

# A server may log the parameters of statements, and a session may not say no unless it is a
# superuser's.
_UNLOGGED = """
SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = panic
"""

# Text in a bytea can be read.
_READABLE = "SET LOCAL bytea_output = 'escape'"

# How many pieces wait between the two servers; asyncpg's pieces are up to 256 kB.
_PIECES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """One table as it was written: what went over the wire."""

    table: str
    rows: int
    sent_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What was written, by table; truncated ones are not among them."""

    tables: tuple[Copied, ...]
    seconds: float

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.tables)

    @property
    def sent_bytes(self) -> int:
        return sum(each.sent_bytes for each in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What was looked at without a finding; a finding raises."""

    rows: int
    # Masked columns whose values were compared with the originals.
    compared: tuple[str, ...]
    # Masked columns that could not be compared, each with the reason.
    not_compared: tuple[str, ...]
    # Kept columns that were searched for addresses, phone numbers and accounts.
    searched: tuple[str, ...]
    sentinels: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """A session on each side: where the rows come from, and where they go."""

    clone: Conn
    build: Conn


@dataclass(slots=True, kw_only=True)
class _Found:
    """What one piece of checking looked at, and what it found."""

    rows: int = 0
    compared: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()


async def read_tables(conn: Conn) -> tuple[Table, ...]:
    """Every table of the database that holds rows of the users. Reads the catalogue only.

    Not the ledger's, and not those that belong to an extension: its script makes and fills them.
    """
    with postgres.translated("reading the tables"):
        return tuple(_table(row) for row in await conn.fetch(query("mask_tables")))


def _table(row: asyncpg.Record) -> Table:
    return Table(
        schema=row["schema"],
        name=row["name"],
        columns=tuple(Column(**each) for each in json.loads(row["columns"])),
        primary_key=tuple(json.loads(row["primary_key"] or "[]")),
        foreign_keys=tuple(
            ForeignKey(
                name=each["name"],
                columns=tuple(each["columns"]),
                references=(each["references"][0], each["references"][1]),
                referenced=tuple(each["referenced"]),
            )
            for each in json.loads(row["foreign_keys"])
        ),
        root=tuple(json.loads(row["root"])) if row["root"] else None,
        partitioned=row["partitioned"],
    )


# ---------------------------------------------------------------- copy


async def copy(
    masks: tuple[TableMask, ...],
    *,
    clone_url: str,
    build_url: str,
    key: str,
    jobs: int,
) -> CopyResult:
    """Every row of the clone, masked, in the build database. Safe to repeat: tables are emptied.

    clone_url: of the superuser or the tables' owner; functions are made there for as long as it
        takes, in the schema airlock_mask.
    build_url: of the tables' owner; the structure stands there without its post-data section.
    key: what the masks are keyed with; the same key makes the same masks.
    jobs: how many tables at a time, the largest first.
    Raises Refused when a masked row does not fit its table, naming the table and the constraint.
    """
    if len(key) < SHORTEST_KEY:
        raise Refused(
            f"The key of the masks has {len(key)} characters; expected were at least "
            f"{SHORTEST_KEY}, or it can be guessed. Make one, for example: openssl rand -hex 32"
        )
    began = time.monotonic()
    derived = derived_key(key)
    done: list[Copied] = []
    async with _functions(clone_url):
        work = await _largest_first(masks, clone_url)

        async def one(sides: _Sides, piece: tuple[TableMask, Table]) -> None:
            await _give_key(sides.clone, derived)
            copied = await _copy_table(sides, *piece)
            done.append(copied)
            log.info("Copied %s: %d rows in %.1f s", copied.table, copied.rows, copied.seconds)

        await _in_parallel(work, one, clone_url=clone_url, build_url=build_url, jobs=jobs)
    tables = tuple(sorted(done, key=lambda each: each.table))
    return CopyResult(tables=tables, seconds=time.monotonic() - began)


def derived_key(key: str) -> str:
    """What the clone is given instead of the key itself, in hexadecimal."""
    return hmac.digest(key.encode(), b"airlock_mask", hashlib.sha256).hex()


async def _give_key(conn: Conn, derived: str) -> None:
    if await conn.fetchval("SELECT pg_catalog.current_setting('is_superuser') = 'on'"):
        await conn.execute(_UNLOGGED)
    # As a parameter: the text of a statement can be seen by others.
    await conn.execute("SELECT pg_catalog.set_config('airlock_mask.key', $1, false)", derived)


@asynccontextmanager
async def _functions(clone_url: str) -> AsyncGenerator[None]:
    """The masks as functions of the clone, and gone again afterwards."""
    with postgres.translated("making the masks in the clone"):
        async with _session(clone_url) as conn:
            await conn.execute(query("mask_functions"))
    try:
        yield
    finally:
        with postgres.translated("removing the masks from the clone"):
            async with _session(clone_url) as conn:
                await conn.execute("DROP SCHEMA IF EXISTS airlock_mask CASCADE")


async def _largest_first(
    masks: Sequence[TableMask], clone_url: str
) -> list[tuple[TableMask, Table]]:
    """The tables to copy: a large one begun last would have to be waited for alone."""
    work = [(mask, store) for mask in masks if not mask.truncated for store in mask.stores]
    names = [quote_ident(*store.place) for _, store in work]
    with postgres.translated("measuring the tables"):
        async with _session(clone_url) as conn:
            rows = await conn.fetch(
                "SELECT COALESCE(pg_catalog.pg_table_size(pg_catalog.to_regclass(n)), 0) AS size"
                " FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS u (n, place)"
                " ORDER BY place",
                names,
            )
    sizes = {name: row["size"] for name, row in zip(names, rows, strict=True)}
    return sorted(work, key=lambda each: -sizes[quote_ident(*each[1].place)])


async def _copy_table(sides: _Sides, mask: TableMask, store: Table) -> Copied:
    began = time.monotonic()
    table = quote_ident(*store.place)
    chosen = ", ".join(_masked(each) for each in mask.columns)
    names = [each.column.name for each in mask.columns]
    try:
        async with sides.build.transaction():
            # A try before this one may have left rows. And in the transaction that emptied the
            # table, rows can be written frozen: nothing has to visit them again.
            await sides.build.execute(f"TRUNCATE ONLY {table}")
            rows, sent = await _pipe(
                sides.clone,
                f"SELECT {chosen} FROM ONLY {table} AS t",  # noqa: S608 – identifiers are quoted
                sides.build,
                store.place,
                names,
                frozen=True,
            )
    except postgres.DRIVER_ERRORS as error:
        # Not "from" the error: its detail quotes the row.
        raise _unfit(error, store.label) from None
    return Copied(table=store.label, rows=rows, sent_bytes=sent, seconds=time.monotonic() - began)


def _masked(mask: ColumnMask) -> str:
    domain = quote_literal(mask.domain)
    # Subqueries that depend on nothing are computed once for the whole table.
    pads = f"(SELECT airlock_mask.pad({domain}, 54)), (SELECT airlock_mask.pad({domain}, 92))"
    return mask.expression(f"t.{quote_ident(mask.column.name)}", pads)


async def _pipe(
    source: Conn,
    select: str,
    sink: Conn,
    place: tuple[str, str],
    columns: Sequence[str],
    *,
    frozen: bool = False,
) -> tuple[int, int]:
    """(rows, bytes) that went from a query into a table, never more than a few pieces at a time."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
    sent = 0

    async def give() -> None:
        await source.copy_from_query(select, output=pieces.put)
        await pieces.put(None)

    async def take() -> AsyncIterator[bytes]:
        nonlocal sent
        while (piece := await pieces.get()) is not None:
            sent += len(piece)
            yield piece

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(give())
            written = group.create_task(
                sink.copy_to_table(
                    place[1],
                    schema_name=place[0],
                    columns=list(columns) or None,
                    source=take(),
                    freeze=frozen or None,
                )
            )
    except ExceptionGroup as failed:
        raise _first(failed) from None
    return int(written.result().split()[-1]), sent


def _unfit(error: Exception, table: str) -> AirlockError:
    """An error of a copy without the row that it quotes."""
    state = postgres.sqlstate(error)
    if not state.startswith(("22", "23")):
        return postgres.translate(error, f"copying {table}")
    constraint = getattr(error, "constraint_name", None)
    column = getattr(error, "column_name", None)
    what = f"constraint {constraint}" if constraint else f"column {column}" if column else "a type"
    return Refused(
        f"A masked row of {table} does not fit: {type(error).__name__} ({state}), {what}. The row "
        "is not shown, because it may hold originals. Choose another rule for the column."
    )


# ---------------------------------------------------------------- sequences


async def copy_sequences(*, clone_url: str, build_url: str) -> int:
    """How many sequences now stand where the clone's do: all but Airlock's own."""
    with postgres.translated("carrying the sequences over"):
        async with _both(clone_url, build_url) as sides:
            names = [row["name"] for row in await sides.clone.fetch(query("mask_sequences"))]
            for name in names:
                rows = await sides.clone.fetch(
                    f"SELECT last_value, is_called FROM {name}"  # noqa: S608 – quoted by the server
                )
                await sides.build.execute(
                    "SELECT pg_catalog.setval($1::pg_catalog.text::pg_catalog.regclass, $2, $3)",
                    name,
                    rows[0]["last_value"],
                    rows[0]["is_called"],
                )
    return len(names)


# ---------------------------------------------------------------- check


async def check(
    masks: tuple[TableMask, ...],
    *,
    clone_url: str,
    build_url: str,
    sentinels: tuple[str, ...],
    jobs: int = 2,
) -> CheckResult:
    """The proof that the copy is whole and that no original of a masked column is in it.

    Rows are counted on both sides. Every masked column's values are compared as a set with the
    originals of that column, by hashes; a noisy number is compared row by row where the primary key
    was kept. The sentinels are looked for in the text of every column, and what people are reached
    or paid by (e-mail, phone, IBAN) in kept text.
    Raises Refused with all that was found: table and column, how many, and what to do.
    """
    began = time.monotonic()
    async with _both(clone_url, build_url) as sides:
        await require_one_hash(sides.clone, sides.build)
    work: list[Callable[[_Sides], Awaitable[_Found]]] = []
    for mask in masks:
        work += [_counting(mask, store) for store in mask.stores]
        if not mask.truncated:
            work += [_comparing(mask, each) for each in mask.columns if each.is_masked]
            work += [_searching(mask, store, sentinels) for store in mask.stores]
    with postgres.translated("checking the masked copy"):
        found = await _in_parallel(
            work, lambda sides, do: do(sides), clone_url=clone_url, build_url=build_url, jobs=jobs
        )
    if violations := [said for each in found for said in each.violations]:
        raise Refused(
            "The masked copy is not safe to use, and was not used.\n" + "\n".join(violations)
        )
    return CheckResult(
        rows=sum(each.rows for each in found),
        compared=tuple(sorted(label for each in found for label in each.compared)),
        not_compared=tuple(sorted(label for each in found for label in each.not_compared)),
        # A partitioned table is searched partition by partition.
        searched=tuple(sorted({label for each in found for label in each.searched})),
        sentinels=len(sentinels),
        seconds=time.monotonic() - began,
    )


async def require_one_hash(clone: Conn, build: Conn) -> None:
    """Between two hash functions nothing would ever be equal, and every check would pass."""
    # Not ASCII: that is the same in each encoding.
    sql = "SELECT pg_catalog.hashtextextended('Schlüssel' COLLATE \"C\", 0)"
    if await clone.fetchval(sql) != await build.fetchval(sql):
        raise Refused(
            "The clone and the staging database hash text differently, so their values cannot be "
            "compared. Use servers of one major version, and databases of one encoding."
        )


def _counting(mask: TableMask, store: Table) -> Callable[[_Sides], Awaitable[_Found]]:
    async def count(sides: _Sides) -> _Found:
        sql = f"SELECT pg_catalog.count(*) FROM ONLY {quote_ident(*store.place)}"  # noqa: S608 – quoted
        there = await sides.build.fetchval(sql)
        expected = 0 if mask.truncated else await sides.clone.fetchval(sql)
        if there == expected:
            return _Found(rows=there)
        return _Found(
            violations=(
                f"{store.label} has {there} rows; expected were {expected}. Refresh again.",
            )
        )

    return count


def _comparing(mask: TableMask, masked: ColumnMask) -> Callable[[_Sides], Awaitable[_Found]]:
    label = f"{mask.table.label}.{masked.column.name}"
    only = "" if mask.table.partitioned else "ONLY "
    table = f"{only}{quote_ident(*mask.table.place)} AS t"
    value = f"t.{quote_ident(masked.column.name)}"
    text = _text(masked.column.name)

    async def compare(sides: _Sides) -> _Found:
        if masked.rule.name == "null":
            left = await sides.build.fetchval(f"SELECT pg_catalog.count({value}) FROM {table}")  # noqa: S608 – quoted
        elif masked.rule.name != "noise":
            left = await _survivors(sides, table, text, f"{value} IS NOT NULL")
        elif (row := _row_of(mask, value)) is None:
            reason = "noise, and the rows cannot be told by a kept primary key"
            return _Found(not_compared=(f"{label}: {reason}",))
        else:
            left = await _survivors(sides, table, row, f"{text} !~ '^-?[0.]+$|NaN|Infinity'")
        if not left:
            return _Found(compared=(label,))
        said = (
            f"{label}: {left} rows still have an original value under the rule "
            f"{masked.rule.name}. Choose a rule that fits this column, and refresh again."
        )
        return _Found(violations=(said,))

    return compare


def _row_of(mask: TableMask, value: str) -> str | None:
    """A row's key with the value as one text, if the key is what it was."""
    kept = {each.column.name for each in mask.columns if not each.is_masked}
    key = mask.table.primary_key
    if not key or not kept.issuperset(key):
        return None
    return f"ROW({', '.join(f't.{quote_ident(name)}' for name in key)}, {value})::pg_catalog.text"


async def _survivors(sides: _Sides, table: str, text: str, where: str) -> int:
    """How many rows of the clone have a text that also stands in the build, compared by hashes."""
    hashed = f'pg_catalog.hashtextextended({text} COLLATE "C", 0)'
    async with sides.clone.transaction():
        await sides.clone.execute(
            "CREATE TEMPORARY TABLE airlock_masked (hash bigint) ON COMMIT DROP"
        )
        await _pipe(
            sides.build,
            f"SELECT DISTINCT {hashed} FROM {table} WHERE {where}",  # noqa: S608 – quoted
            sides.clone,
            ("pg_temp", "airlock_masked"),
            ["hash"],
        )
        return int(
            await sides.clone.fetchval(
                f"SELECT pg_catalog.count(*) FROM {table} WHERE {where}"  # noqa: S608 – quoted
                f" AND {hashed} IN (SELECT hash FROM pg_temp.airlock_masked)"
            )
        )


def _searching(
    mask: TableMask, store: Table, sentinels: Sequence[str]
) -> Callable[[_Sides], Awaitable[_Found]]:
    """One reading of a table for the sentinels and the patterns."""
    table = f"ONLY {quote_ident(*store.place)} AS t"
    forms = _forms(sentinels)
    every = [each.name for each in mask.table.columns if sentinels]
    kept = [
        each.column.name
        for each in mask.columns
        if each.column.holds_text and each.rule.name == "keep" and not each.rule.checked
    ]
    asked = [(name, None, _planted(name, len(forms))) for name in every]
    asked += [(name, like, like.test(_text(name))) for name in kept for like in PATTERNS]

    async def search(sides: _Sides) -> _Found:
        if not asked:
            return _Found()
        counts = ", ".join(f"count(*) FILTER (WHERE {test})" for _, _, test in asked)
        async with sides.build.transaction():
            await sides.build.execute(_READABLE)
            (row,) = await sides.build.fetch(f"SELECT {counts} FROM {table}", *forms)  # noqa: S608 – quoted
        said: list[str] = []
        for (name, pattern, _), rows in zip(asked, row.values(), strict=True):
            label = f"{mask.table.label}.{name}"
            if rows and pattern is None:
                said.append(f"{label}: {rows} rows contain a sentinel. Mask the column.")
            elif rows and pattern is not None:
                said += await _look_closer(sides.build, table, name, label, pattern)
        searched = tuple(f"{mask.table.label}.{name}" for name in kept)
        return _Found(searched=searched, violations=tuple(said))

    return search


def _planted(column: str, forms: int) -> str:
    """A condition in SQL: one of the parameters is in the column."""
    tests = (f"strpos({_text(column)}, ${number}) > 0" for number in range(1, forms + 1))
    return f"({' OR '.join(tests)})"


def _forms(sentinels: Sequence[str]) -> list[str]:
    """The sentinels as themselves, in json with escapes, and as the bytes of a bytea."""
    made = [(each, json.dumps(each)[1:-1], _escaped(each.encode())) for each in sentinels]
    return list(dict.fromkeys(form for forms in made for form in forms))


def _escaped(data: bytes) -> str:
    # https://www.postgresql.org/docs/current/datatype-binary.html (escape format)
    doubled = data.replace(b"\\", b"\\\\")
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in doubled)


async def search_views(*, build_url: str, sentinels: Sequence[str]) -> None:
    """Raises Refused naming the materialised views that have a sentinel in them."""
    if not sentinels:
        return
    with postgres.translated("searching the materialised views"):
        async with _session(build_url) as conn, conn.transaction():
            await conn.execute(_READABLE)
            views = await conn.fetch(query("filled_views"))
            found = [each["name"] for each in views if await _is_in_view(conn, each, sentinels)]
    if found:
        raise Refused(
            f"A sentinel is in materialised views of the copy: {', '.join(found)}. Their tables "
            "are masked, so it stands in their definition; take it out there."
        )


async def _is_in_view(conn: Conn, view: asyncpg.Record, sentinels: Sequence[str]) -> bool:
    forms = _forms(sentinels)
    tests = " OR ".join(["false", *(_planted(name, len(forms)) for name in view["columns"] or ())])
    name = quote_ident(view["schema"], view["name"])
    sql = f"SELECT EXISTS (SELECT FROM {name} AS t WHERE {tests})"  # noqa: S608 – quoted
    return bool(await conn.fetchval(sql, *forms))


async def _look_closer(
    conn: Conn, table: str, name: str, label: str, pattern: Pattern
) -> list[str]:
    """What a pattern found, without what only looks like it."""
    rows, shape = 0, ""
    sql = (
        f"SELECT found[1] FROM {table},"  # noqa: S608 – quoted
        f" pg_catalog.regexp_matches({_text(name)}, $1, 'g') AS found"
    )
    async with conn.transaction():
        async for row in conn.cursor(sql, f"({pattern.regex})", prefetch=1000):
            if pattern.is_real(row[0]):
                rows, shape = rows + 1, shape or masking.shape(row[0])
    if not rows:
        return []
    said = (
        f"{label}: kept, and {rows} times there is what looks like {pattern.name} (as {shape}). "
        'Choose a rule that masks it, or, where a person has looked, { rule = "keep", checked = '
        "true }."
    )
    return [said]


def _text(name: str) -> str:
    return f"t.{quote_ident(name)}::pg_catalog.text"


# ---------------------------------------------------------------- sessions


@asynccontextmanager
async def _session(url: str) -> AsyncGenerator[Conn]:
    async with postgres.connect(url, purpose="mask", limit_s=postgres.TABLES_S) as conn:
        await conn.execute(_PINNED)
        if conn.get_server_version().major >= 17:
            await conn.execute("SET transaction_timeout = 0")
        await postgres.stay_connected(conn)
        yield conn


@asynccontextmanager
async def _both(clone_url: str, build_url: str) -> AsyncGenerator[_Sides]:
    async with _session(clone_url) as clone, _session(build_url) as build:
        yield _Sides(clone=clone, build=build)


async def _in_parallel(
    work: Sequence[T],
    do: Callable[[_Sides, T], Awaitable[R]],
    *,
    clone_url: str,
    build_url: str,
    jobs: int,
) -> list[R]:
    """The results in the order in which they came, from ``jobs`` workers with own sessions.

    The first failure ends the others.
    """
    waiting, results = deque(work), list[R]()

    async def worker() -> None:
        async with _both(clone_url, build_url) as sides:
            while waiting:
                results.append(await do(sides, waiting.popleft()))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(jobs, len(work))):
                group.create_task(worker())
    except ExceptionGroup as failed:
        raise _first(failed) from None
    return results


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    """The failure that ended the others; what went into the group is never a group itself."""
    return failed.exceptions[0]
