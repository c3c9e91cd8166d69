"""A way to a Prefect server that can be shut: a server that is away, and comes back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import httpx

from tests.patience import PATIENCE_S


class Gateway:
    """A way to the Prefect server that can be shut.

    In a thread of its own: Prefect waits for some answers without letting the loop run.
    """

    def __init__(self, api_url: str) -> None:
        self._upstream = httpx.URL(api_url)
        self._ways: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._is_shut = False
        self.api_url = ""

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._upstream.host, self._upstream.port)
        self._ways |= {writer, back}
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    def _abort(self) -> None:
        for way in self._ways:
            way.transport.abort()
        self._ways.clear()

    def close(self) -> None:
        """Nobody gets through from now on."""
        self._is_shut = True
        self._loop.call_soon_threadsafe(self._abort)

    async def shut(self, seconds: float) -> None:
        """Nobody gets through for a while."""
        self.close()
        await asyncio.sleep(seconds)
        self._is_shut = False

    def __enter__(self) -> Gateway:
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        listening = asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._listening = asyncio.run_coroutine_threadsafe(listening, self._loop).result(PATIENCE_S)
        self.api_url = f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/api"
        return self

    def __exit__(self, *_: object) -> None:
        self._is_shut = True
        self._loop.call_soon_threadsafe(self._listening.close)
        self._loop.call_soon_threadsafe(self._abort)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.2, self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _pump(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(2**16):
            drain.write(chunk)
            await drain.drain()
    drain.transport.abort()
