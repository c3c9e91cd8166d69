"""The ways on which a client reaches the service and the database, each one request at a time.

None of them can hurt. Reads take one row of a table. Writes change a number in a table of ours, or
take the lock of INSERT, UPDATE and DELETE and change nothing: ``LOCK TABLE … IN ROW EXCLUSIVE
MODE``, let go in the same message. ``UPDATE … WHERE false`` takes that lock too, and fires triggers
FOR EACH STATEMENT; LOCK fires nothing and writes no WAL. Each transaction has one table (ONLY: no
partition behind its parent), so it cannot be part of a deadlock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import asyncpg

from airlock import postgres, syntax
from airlock.authorities import authorities
from airlock.client.felt import Kind
from airlock.plan import Plan
from airlock.postgres import Conn, quote_ident
from airlock.service import probe
from airlock.settings import Target

if TYPE_CHECKING:
    import httpx

# How long one request may take, in seconds. A stall is measured beyond it: the client tries again.
LIMIT_S = 5.0
# A session that is not needed for so long is closed.
IDLE_S = 10.0
# Clients have their sessions at hand, so opening one is no wait, unless it takes as long as this.
OPENS_S = 0.25
MOST_TABLES = 6
_GOODBYE_S = 1.0


class Absent(Exception):
    """What is asked for is not there, or not for us: no client is kept waiting by that."""


class Failed(Exception):
    """A client would have seen an error."""


# A request. ``sent`` is called when it is really on its way, and begins its wait anew.
Ask = Callable[[Callable[[], None]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One channel: its name for people, and its request."""

    name: str
    kind: Kind
    ask: Ask


# ---------------------------------------------------------------- database


class Sessions:
    """Sessions of our own, no more at a time than requests that wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[tuple[float, Conn, AsyncExitStack]] = []

    async def run(self, sql: str, sent: Callable[[], None]) -> None:
        """One message. Raises Absent or Failed."""
        opened = time.monotonic()
        try:
            conn, stack = await self._take()
            if time.monotonic() - opened < OPENS_S:
                sent()
            await self._execute(conn, stack, sql)
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
            raise Absent(postgres.wording(error)) from error
        except Exception as error:
            raise Failed(type(error).__name__) from error

    async def _execute(self, conn: Conn, stack: AsyncExitStack, sql: str) -> None:
        try:
            await conn.execute(sql)
        except BaseException:
            conn.terminate()
            await stack.aclose()
            raise
        self._free.append((time.monotonic(), conn, stack))
        # The one that is used least lies at the bottom.
        used_at, _, oldest = self._free[0]
        if time.monotonic() - used_at > IDLE_S:
            del self._free[0]
            await oldest.aclose()

    async def _take(self) -> tuple[Conn, AsyncExitStack]:
        if self._free:
            _, conn, stack = self._free.pop()
            return conn, stack
        stack = AsyncExitStack()
        conn = await stack.enter_async_context(
            postgres.connect(self._url, purpose="client", timeout_s=LIMIT_S, limit_s=LIMIT_S + 1)
        )
        try:
            await postgres.stay_connected(conn)
            await conn.execute(f"SET statement_timeout = {round(LIMIT_S * 1000)}")
        except BaseException:
            await stack.aclose()
            raise
        return conn, stack

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A peer that is gone does not say goodbye.
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await asyncio.gather(*(stack.aclose() for _, _, stack in self._free))


def database_ways(sessions: Sessions, tables: Iterable[str]) -> Iterator[Way]:
    """Reads and writes of our own table, and of those that the plan touches.

    tables: quoted and qualified.
    """
    own = (
        ("database read", "SELECT n FROM airlock.client_row"),
        ("database write", "UPDATE airlock.client_row SET n = n + 1"),
    )
    for kind, sql in own:
        yield _way(sessions, "Airlock's own table", cast("Kind", kind), sql)
    for table in tables:
        name = "table " + table.replace('"', "")
        yield _way(sessions, name, "database read", f"SELECT 1 FROM ONLY {table} LIMIT 1")  # noqa: S608 – quoted
        lock = f"BEGIN; LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE; COMMIT"
        yield _way(sessions, name, "database write", lock)


def _way(sessions: Sessions, name: str, kind: Kind, sql: str) -> Way:
    async def ask(sent: Callable[[], None]) -> None:
        await sessions.run(sql, sent)

    return Way(name=name, kind=kind, ask=ask)


async def touched_tables(conn: Conn, plan: Plan) -> tuple[str, ...]:
    """The tables that the plan names and that are there already, quoted and qualified."""
    oids = await postgres.meant(conn, *dict.fromkeys(_named(plan)))
    rows = await conn.fetch(postgres.query("client_tables"), oids)
    return tuple(row["name"] for row in rows)[:MOST_TABLES]


def _named(plan: Plan) -> Iterator[str]:
    for each in plan.migrations:
        for statement in syntax.parse(each.forward):
            yield from _relations(statement.node)
            if statement.kind == "DropStmt" and statement.node.get("removeType") == "OBJECT_TABLE":
                for item in statement.node["objects"]:
                    parts = item["List"]["items"]
                    yield quote_ident(*(part["String"]["sval"] for part in parts))


def _relations(node: object) -> Iterator[str]:
    """Every relation that is named below a node; many stand there without "RangeVar" in front."""
    if isinstance(node, dict):
        found = cast("Mapping[str, Any]", node)
        if isinstance(name := found.get("relname"), str):
            schema = [str(found["schemaname"])] if "schemaname" in found else []
            yield quote_ident(*schema, name)
        for child in found.values():
            yield from _relations(child)
    elif isinstance(node, list):
        for child in cast("list[object]", node):
            yield from _relations(child)


# ---------------------------------------------------------------- service


@asynccontextmanager
async def service_ways(target: Target) -> AsyncGenerator[tuple[Way, ...]]:
    """Reads on new connections and on a kept one, and a write where the settings name one."""
    health = urlsplit(probe.public_url(target))
    if not health.netloc:
        yield ()
        return
    base, wanted = f"{health.scheme}://{health.netloc}", target.probe
    smoke = next((each.path for each in target.health.smoke if each.method == "GET"), None)
    path = wanted.read or smoke or probe.path(target)
    async with probe.client() as new, _kept() as kept:
        name = path.partition("?")[0]
        ways = [
            _request(new, "GET", base, path, f"{name}, new connections"),
            _request(kept, "GET", base, path, f"{name}, a kept connection"),
        ]
        if (write := wanted.write) is not None:
            name = write.path.partition("?")[0]
            ways.append(_request(kept, write.method, base, write.path, name, write.body))
        yield tuple(ways)


@asynccontextmanager
async def _kept() -> AsyncGenerator[httpx.AsyncClient]:
    """A client that keeps its connections, and has no proxy from the environment."""
    import httpx

    async with httpx.AsyncClient(trust_env=False, verify=authorities()) as opened:
        yield opened


def _request(
    http: httpx.AsyncClient, method: str, base: str, path: str, name: str, body: str | None = None
) -> Way:
    import httpx

    url = f"{base}/{path.lstrip('/')}"
    headers = {"Content-Type": "application/json"} if body is not None else {}

    async def ask(sent: Callable[[], None]) -> None:
        del sent
        try:
            # In all; httpx's own is for each part of it.
            async with asyncio.timeout(LIMIT_S):
                answer = await http.request(
                    method, url, content=body, headers=headers, timeout=LIMIT_S
                )
        except (httpx.HTTPError, OSError) as error:
            raise Failed(type(error).__name__) from error
        if answer.status_code >= 500:
            raise Failed(f"HTTP {answer.status_code}")

    kind: Kind = "service read" if method == "GET" else "service write"
    return Way(name=name, kind=kind, ask=ask)
