"""``python -m bench.table_clients URL``: clients that read and write one table by its key.

Each has a time at which its next request is due, whether the one before it was answered or not: a
wait is counted from there, so that a stall is as long as it was for whoever would have asked.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import dataclass

import asyncpg

from bench.clients import Seen, work

CLIENTS = 8
# 400 requests a second together: they keep neither of two cores busy.
PERIOD_S = 0.02
READ = "SELECT id, desk_id, quantity, settled_on, note FROM trades WHERE id = $1"
WRITE = "UPDATE trades SET touched = touched + 1 WHERE id = $1"
ADD = "INSERT INTO trades (desk_id, quantity, settled_on, note) VALUES ($1, 7, '2026-01-01', 'new')"


@dataclass(slots=True, kw_only=True)
class Client:
    """One client. Half of them read, the others change rows and now and then add one."""

    number: int
    conn: asyncpg.Connection
    rows: int

    async def run(self, seen: Seen, over: asyncio.Event) -> None:
        rng = random.Random(self.number)  # noqa: S311 - load, not secrets
        due = time.monotonic() + PERIOD_S * self.number / CLIENTS
        count = 0
        while not over.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                await self._ask(rng.randint(1, self.rows), adds=count % 4 == 3)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                seen.errors[f"{type(error).__name__}: {error}"] += 1
            else:
                seen.waits.append((due, time.monotonic() - due, "read" if self.reads else "write"))
            count += 1
            due += PERIOD_S
        await self.conn.close()

    @property
    def reads(self) -> bool:
        return self.number % 2 == 0

    async def _ask(self, key: int, *, adds: bool) -> None:
        if self.reads:
            assert await self.conn.fetchrow(READ, key) is not None
        elif adds:
            await self.conn.execute(ADD, key % 100 + 1)
        else:
            await self.conn.execute(WRITE, key)


async def main(url: str) -> None:
    clients: list[Client] = []
    for number in range(CLIENTS):
        # As the tracker's service does: prepared statements outlive a change of what they return.
        conn = await asyncpg.connect(url, statement_cache_size=0)
        rows = await conn.fetchval("SELECT max(id) FROM trades")
        clients.append(Client(number=number, conn=conn, rows=rows))
    await work([client.run for client in clients])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
