"""Light traffic on the clone: readers and writers of the tables that a plan touches.

How long they wait is measured, and nothing of theirs stays. A writer takes the lock of an UPDATE
and no row, so that no trigger of the tables acts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from airlock import postgres

# Between two requests of one session, in seconds.
PAUSE_S = 0.005


@dataclass(slots=True, kw_only=True)
class Traffic:
    """The requests of all sessions, and the longest wait of any."""

    _longest_s: float = 0.0
    _open: dict[int, float] = field(default_factory=dict[int, float])

    def take(self) -> float:
        """The longest wait in ms since the last call, of requests that are open still as well."""
        now = time.monotonic()
        longest_s = max([self._longest_s, *(now - began for began in self._open.values())])
        self._longest_s = 0.0
        self._open = dict.fromkeys(self._open, now)
        return longest_s * 1000

    async def request(self, conn: postgres.Conn, session: int, sql: str) -> None:
        self._open[session] = time.monotonic()
        try:
            await conn.execute(sql)
        except postgres.DRIVER_ERRORS:
            # The plan has dropped or renamed the table; what waited for it has waited.
            if not conn.is_closed():
                await conn.execute("ROLLBACK")
        finally:
            waited_s = time.monotonic() - self._open.pop(session)
            self._longest_s = max(self._longest_s, waited_s)


@asynccontextmanager
async def going(
    url: str, relations: Iterable[str], sessions: int
) -> AsyncGenerator[Traffic | None]:
    """So many sessions read and write the tables among these relations; None where there is none.

    relations: as schema.name, quoted.
    """
    async with contextlib.AsyncExitStack() as stack:
        connected = [
            await stack.enter_async_context(
                # What waits for long is what is measured.
                postgres.connect(url, purpose="rehearsal traffic", limit_s=postgres.TABLES_S)
            )
            for _ in range(sessions)
        ]
        tables = await _tables(connected[0], relations) if connected else ()
        if not tables:
            yield None
            return
        traffic = Traffic()
        tasks = [
            asyncio.create_task(_session(traffic, conn, number, tables))
            for number, conn in enumerate(connected)
        ]
        try:
            yield traffic
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tables(conn: postgres.Conn, relations: Iterable[str]) -> tuple[str, ...]:
    rows = await conn.fetch(
        "SELECT r.name FROM pg_catalog.unnest($1::pg_catalog.text[]) AS r (name)"
        " JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(r.name)"
        " WHERE c.relkind IN ('r', 'p') ORDER BY r.name",
        sorted(set(relations)),
    )
    return tuple(row["name"] for row in rows)


async def _session(
    traffic: Traffic, conn: postgres.Conn, number: int, tables: Sequence[str]
) -> None:
    # Each begins with another table, so that they do not all stand in one queue.
    for table in itertools.islice(itertools.cycle(tables), number, None):
        # Names are quoted by the server, which said them.
        await traffic.request(conn, number, f"SELECT FROM {table} LIMIT 1")
        write = f"BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE; ROLLBACK"
        await traffic.request(conn, number, write)
        await asyncio.sleep(PAUSE_S)
