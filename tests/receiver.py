"""A small HTTP server on loopback that keeps what it is sent, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True, kw_only=True)
class Receiver:
    """status: of every answer. answers: JSON by method and the end of the path.

    hold: while it is cleared, nobody gets an answer.
    """

    url: str = ""
    status: int = 200
    headers: str = ""
    answers: dict[tuple[str, str], object] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bodies(self) -> list[Any]:
        return [each.body for each in self.received if each.method == "POST"]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            method, path, _ = first.split(" ")
            named = (line.split(": ", 1) for line in rest)
            headers = {name.lower(): value for name, value in named}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            got = Received(
                method=method, path=path, headers=headers, body=json.loads(body) if body else None
            )
            self.received.append(got)
            await self.hold.wait()
            plain = path.partition("?")[0]
            said = next(
                (a for (m, end), a in self.answers.items() if m == method and plain.endswith(end)),
                None,
            )
            text = json.dumps(said).encode() if said is not None else b""
            writer.write(
                f"HTTP/1.1 {self.status} X\r\n{self.headers}Content-Length: {len(text)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + text
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that answers 200 to everything, as long as the block runs."""
    found = Receiver()
    found.hold.set()
    async with await asyncio.start_server(found.handle, "127.0.0.1", 0) as server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found
