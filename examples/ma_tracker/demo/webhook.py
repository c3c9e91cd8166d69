"""A receiver of alerts, where Slack would be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Webhook:
    """What has arrived so far, in order."""

    url: str = ""
    texts: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one POST and say thanks."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            self.texts.append(json.loads(body)["text"])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Webhook]:
    """A webhook on a free loopback port, for as long as the block runs."""
    webhook = Webhook()
    async with await asyncio.start_server(webhook.handle, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        webhook.url = f"http://127.0.0.1:{port}/services/airlock"
        yield webhook
