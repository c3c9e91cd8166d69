"""A proxy on loopback between a client and PostgreSQL that can lose what it carries.

    async with proxy_to(database.tcp_url) as proxy:
        proxy.arm("swallow", session="airlock apply")
        ...  # a session named so, through proxy.url: its COMMIT arrives, the answer does not
        assert proxy.struck

It reads just enough of the protocol to know which SQL a message carries and whose session it is.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

# cut before: the message does not arrive, and the connection ends.
# cut after: the message arrives and is worked on to its end; then the connection ends unanswered.
# swallow: the message arrives, and nothing comes back any more; the connection stays.
# stall: from this message on nothing goes either way, not even the end of the connection.
Fault = Literal["cut before", "cut after", "swallow", "stall"]
FAULTS: tuple[Fault, ...] = ("cut before", "cut after", "swallow", "stall")

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
COMMIT = r"\bCOMMIT\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """What happens, and when."""

    fault: Fault
    at: re.Pattern[str]
    session: str
    skip: int


@dataclass(slots=True, kw_only=True)
class Proxy:
    """A running proxy. Faults are chosen while it runs."""

    upstream: tuple[str, int]
    port: int = 0
    struck: list[str] = field(default_factory=list)  # the SQL of each message that met its trap
    _login: str = ""
    _traps: list[Trap] = field(default_factory=list)
    _links: set[_Link] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The address that ``proxy_to`` was given, through the proxy."""
        return self.through(self._login)

    def through(self, url: str) -> str:
        """Another login or database of the same server, through the proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        netloc = f"{login}{at}127.0.0.1:{self.port}"
        return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))

    def arm(self, fault: Fault, *, at: str = COMMIT, session: str = "", skip: int = 0) -> None:
        """Let the next message that fits meet the fault, once.

        at: a regular expression that is looked for in the message's SQL, whatever its case.
        session: how the session's application_name begins.
        skip: how many messages that fit pass before.
        """
        pattern = re.compile(at, re.IGNORECASE)
        self._traps.append(Trap(fault=fault, at=pattern, session=session, skip=skip))

    def disarm(self) -> None:
        """Nothing more happens to messages to come."""
        self._traps.clear()

    def cut(self, session: str = "") -> None:
        """End the connections of these sessions now."""
        for link in self._of(session):
            link.close()

    def stall(self, session: str = "") -> None:
        """Carry nothing more for these sessions, until ``resume``."""
        for link in self._of(session):
            link.gate.clear()

    def resume(self) -> None:
        """Carry on where links were stalled."""
        for link in self._links:
            link.gate.set()

    def _of(self, session: str) -> list[_Link]:
        return [link for link in self._links if link.name.startswith(session)]

    def meets(self, name: str, sql: str) -> Fault | None:
        """The fault that this message of that session meets, which is spent by it."""
        for number, trap in enumerate(self._traps):
            if name.startswith(trap.session) and trap.at.search(sql):
                if trap.skip:
                    passed = Trap(
                        fault=trap.fault, at=trap.at, session=trap.session, skip=trap.skip - 1
                    )
                    self._traps[number] = passed
                    return None
                del self._traps[number]
                self.struck.append(sql)
                return trap.fault
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(proxy=self, client=(reader, writer), server=upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def end(self) -> None:
        for link in list(self._links):
            link.close()


@dataclass(slots=True, kw_only=True, eq=False)
class _Link:
    """One connection through the proxy."""

    proxy: Proxy
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    name: str = ""
    deaf: bool = False  # answers are thrown away
    last: bool = False  # the answer that comes is the last thing that happens
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        self.gate.set()
        for _, writer in (self.client, self.server):
            writer.transport.abort()

    async def run(self) -> None:
        self.gate.set()
        ways = [asyncio.create_task(way) for way in (self._there(), self._back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self.close()

    async def _there(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._greeting()
            reader, _ = self.client
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                fault = self.proxy.meets(self.name, sql) if (sql := _sql(head, body)) else None
                if fault == "cut before":
                    return
                if fault == "stall":
                    self.gate.clear()
                self.deaf = self.deaf or fault in ("swallow", "cut after")
                self.last = self.last or fault == "cut after"
                await self._send(self.server[1], head + body)
        # A client that goes away is not heard of where nothing is carried.
        await self.gate.wait()

    async def _greeting(self) -> None:
        reader, _ = self.client
        while True:
            head = await reader.readexactly(8)
            body = await reader.readexactly(int.from_bytes(head[:4]) - 8)
            code = int.from_bytes(head[4:])
            if code not in (_SSL, _GSS, _CANCEL):
                words = body.decode(errors="replace").split("\0")
                said = dict(zip(words[::2], words[1::2], strict=False))
                self.name = said.get("application_name", "")
            await self._send(self.server[1], head + body)
            if code not in (_SSL, _GSS):
                return

    async def _back(self) -> None:
        reader, _ = self.server
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while chunk := await reader.read(2**16):
                if self.last and _is_ready(chunk):
                    return
                if not self.deaf:
                    await self._send(self.client[1], chunk)
        await self.gate.wait()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self.gate.wait()
        writer.write(data)
        await writer.drain()


def _sql(head: bytes, body: bytes) -> str:
    """The SQL that a message carries: of a simple query, or of one that is prepared."""
    match head[:1]:
        case b"Q":
            return body.rstrip(b"\0").decode(errors="replace")
        case b"P":
            return body.split(b"\0")[1].decode(errors="replace")
        case _:
            return ""


def _is_ready(chunk: bytes) -> bool:
    # ReadyForQuery is the end of every answer.
    return chunk[-6:-1] == b"Z\0\0\0\5"


@asynccontextmanager
async def proxy_to(url: str) -> AsyncGenerator[Proxy]:
    """A proxy in front of the server of a TCP address, ended with all that it carries."""
    parts = urlsplit(url)
    proxy = Proxy(upstream=(parts.hostname or "127.0.0.1", parts.port or 5432), _login=url)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        proxy.end()
        await listening.wait_closed()
        # The links' tasks see their ends in the next turns of the loop.
        while proxy._links:  # noqa: ASYNC110 – they are gone at once
            await asyncio.sleep(0)
