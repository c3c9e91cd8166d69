"""A server that goes away without failing a request."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# How long clients that keep their connection may take to send the one more request by which they
# learn that it closes. A connection that is idle for longer is cut.
DRAIN_S = 3.0
FINISH_S = 5

# Longer than any client keeps an idle connection, so that it is the client who closes it. A server
# that closes first races with the next request.
KEEP_ALIVE_S = 75


class Draining:
    """While active, every answer carries ``Connection: close``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.active = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def announce(message: Message) -> None:
            if self.active and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, announce)


class DrainingServer(uvicorn.Server):
    """uvicorn, whose own shutdown cuts idle connections at once, with a drain before it."""

    def __init__(self, config: uvicorn.Config, draining: Draining) -> None:
        super().__init__(config)
        self.draining = draining

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.draining.active = True
        for listener in self.servers:
            listener.close()
        open_at_first = len(self.server_state.connections)
        log.info("draining %s connections", open_at_first)
        began_at = time.monotonic()
        while self.server_state.connections and not self.force_exit:
            if time.monotonic() - began_at > DRAIN_S:
                break
            await asyncio.sleep(0.02)
        left = len(self.server_state.connections)
        log.info(
            "drained %s connections in %.2f s, cutting %s",
            open_at_first - left,
            time.monotonic() - began_at,
            left,
        )
        await super().shutdown(sockets)


def serve(app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
    """Answer on the sockets until SIGTERM or SIGINT, then drain."""
    draining = Draining(app)
    config = uvicorn.Config(
        draining,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_S,
    )
    server = DrainingServer(config, draining)
    server.run(sockets=list(sockets))
    if not server.started:
        sys.exit(3)
