"""``python -m bench.http_clients PORT MODE AT_LEAST``: clients of the tracker's service.

MODE: ``new`` opens a connection for each request; ``keep`` keeps its own until the service says
that it closes. Nothing is sent twice: a request without a good answer has failed, also on a
connection that had been idle.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass

from bench.clients import Seen, work

CLIENTS = 24
# Most of them ask again at once. The last four let their connection idle, for less than the three
# seconds after which a draining service cuts it.
PAUSE_S, IDLE_S, IDLERS = 0.03, 2.0, 4
TIMEOUT_S = 30
WRITE = json.dumps(
    {"acquirer_name": "Buyer", "target_name": "Bench", "announced_on": "2026-01-01"}
).encode()


@dataclass(slots=True, kw_only=True)
class Client:
    """One client, which asks and now and then writes."""

    number: int
    port: int
    keeps: bool
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def run(self, seen: Seen, over: asyncio.Event) -> None:
        longest_pause_s = IDLE_S if self.number >= CLIENTS - IDLERS else PAUSE_S
        rng = random.Random(self.number)  # noqa: S311 - load, not secrets
        waits_since = None
        count = 0
        while not over.is_set():
            count += 1
            kind = "write" if count % 10 == 0 else "read"
            due = time.monotonic()
            # A client that was let down asks again, and has waited since it asked first.
            waits_since = due if waits_since is None else waits_since
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._ask(kind)
            except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                seen.errors[type(error).__name__] += 1
                self._close()
            else:
                seen.waits.append((waits_since, time.monotonic() - waits_since, kind))
                waits_since = None
            await asyncio.sleep(rng.uniform(0, longest_pause_s if waits_since is None else PAUSE_S))
        self._close()

    async def _ask(self, kind: str) -> None:
        """One request and its whole answer. Raises when it is not a good one."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(self._request(kind))
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        await self.reader.readexactly(int(fields["content-length"]))
        if not status.split()[1].startswith("2"):
            raise ValueError(status)
        if not self.keeps or fields.get("connection") == "close":
            self._close()

    def _request(self, kind: str) -> bytes:
        method, path, body = (
            ("POST", "/deals", WRITE) if kind == "write" else ("GET", "/deals?limit=2", b"")
        )
        keep = "keep-alive" if self.keeps else "close"
        return (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {keep}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def main(port: int, mode: str, at_least: int) -> None:
    clients = [Client(number=n, port=port, keeps=mode == "keep").run for n in range(CLIENTS)]
    await work(list(clients), at_least=at_least)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
