"""Prefect's server as Airlock starts it: ``python -m flows.runtime.server``.

As `prefect server start`, but behind a door (flows/runtime/door.py), and never without an auth
string: it is taken from PREFECT_SERVER_API_AUTH_STRING. `make serve` and the units start this.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from flows.runtime import auth
from flows.runtime.command import LOOPBACK, UI_PORT

NOT_STARTED = 3  # as uvicorn's own


def parser() -> argparse.ArgumentParser:
    """Its options, each with its default."""
    made = argparse.ArgumentParser(prog="python -m flows.runtime.server", description=__doc__)
    made.add_argument("--host", default=LOOPBACK, help="address to listen on; %(default)s")
    made.add_argument("--port", type=int, default=UI_PORT, help="%(default)s by default")
    made.add_argument("--fd", type=int, help="a socket that listens already, instead of these")
    made.add_argument("--no-services", action="store_true", help="only API and UI")
    return made


def main() -> int:
    given = parser().parse_args()
    secret = auth.of_the_environment()
    if secret is None:
        print(  # noqa: T201
            f"airlock: {auth.VARIABLE} is not set, and without it everybody who reaches the "
            "server could start a deploy. Set it to a name and a random password, as in "
            '"airlock:$(openssl rand -hex 24)".',
            file=sys.stderr,
        )
        return os.EX_CONFIG
    return _serve(secret, given)


def _serve(secret: str, given: argparse.Namespace) -> int:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from flows.runtime.door import Door

    prefect = get_current_settings()
    api = prefect.server.api
    app = Door(
        create_app(final=True, webserver_only=given.no_services),
        auth_string=secret,
        names=_names(prefect.api.url, *api.cors_allowed_origins.split(",")),
        api_path=api.base_path or "/api",
    )
    config = uvicorn.Config(
        app,
        host=given.host,
        port=given.port,
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
        log_level=prefect.server.logging_level.lower(),
    )
    server = uvicorn.Server(config)
    bound = config.bind_socket() if given.fd is None else socket.socket(fileno=given.fd)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    return 0 if server.started else NOT_STARTED


def _names(*addresses: str | None) -> Iterator[str]:
    """Those by which clients and browsers are told to call us."""
    for address in addresses:
        if name := urlsplit(address or "").hostname:
            yield name


if __name__ == "__main__":
    sys.exit(main())
