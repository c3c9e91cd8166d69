"""A loopback port that leads to the clone's Unix socket, which not every driver can use."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from airlock.service import table

log = logging.getLogger(__name__)

_CHUNK = 2**16


class Relay:
    """The port, and how often somebody was let through."""

    def __init__(self, socket_file: Path) -> None:
        self._socket_file = socket_file
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let one client through, if it is a program of ours: behind the port is no password."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            ends = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            if await asyncio.to_thread(table.owner, *ends) == os.getuid():
                await self._let_through(reader, writer)
        except OSError as error:
            log.info("The clone could not be reached: %s", error)
        finally:
            await _closed(writer)

    async def _let_through(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answers, asking = await asyncio.open_unix_connection(self._socket_file)
        self.connections += 1
        try:
            both = [
                asyncio.ensure_future(each)
                for each in (_pump(reader, asking), _pump(answers, writer))
            ]
            try:
                # Who has ended on one side has nothing to say on the other.
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            await _closed(asking)

    async def end(self) -> None:
        """Let go of everybody."""
        for task in (left := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def relay(socket_file: Path) -> AsyncGenerator[Relay]:
    """A port that leads there while the block runs, for programs of this user alone."""
    made = Relay(socket_file)
    server = await asyncio.start_server(made.admit, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.end()


async def _pump(source: asyncio.StreamReader, goal: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await source.read(_CHUNK):
            goal.write(chunk)
            await goal.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
