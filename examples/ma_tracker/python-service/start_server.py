"""The M&A Tracker's service: ``python3 start_server.py``.

Everything comes from the environment:

    DATABASE_URL      required
    HOST, PORT        where to listen, 127.0.0.1 and 8000 by default
    LISTEN_FDS        with LISTEN_PID: sockets passed by the parent, instead of HOST and PORT
    RELEASE           which code this is, shown by /health
    AIRLOCK_INSTANCE  who started this process, echoed by /health

SIGTERM drains: nothing new is accepted, what is in flight is answered, and clients that keep
their connection are told to open another one. Nobody notices, if another instance listens.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

log = logging.getLogger("tracker")

FIRST_PASSED_FD = 3


def main() -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # Until uvicorn takes over, and when it raises the signal again after its own clean end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    database_url = os.environ.get("DATABASE_URL")
    if not database_url:
        log.error("DATABASE_URL is not set; expected postgresql://user@host/database")
        sys.exit(2)
    sockets = passed_sockets() or [own_socket()]

    from draining import serve
    from routes import build

    serve(
        build(
            database_url,
            release=os.environ.get("RELEASE", "working tree"),
            instance=os.environ.get("AIRLOCK_INSTANCE", ""),
        ),
        sockets,
    )


def passed_sockets() -> list[socket.socket]:
    """The listening sockets that the parent has opened for us, by systemd's protocol.

    https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
    """
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    meant_for = os.environ.pop("LISTEN_PID", "")
    if not count or meant_for != str(os.getpid()):
        return []
    sockets = [socket.socket(fileno=FIRST_PASSED_FD + n) for n in range(count)]
    for each in sockets:
        each.set_inheritable(False)
    return sockets


def own_socket() -> socket.socket:
    """A socket bound to HOST and PORT, beside an older instance that is still bound to them."""
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    ours = socket.socket(family, kind, protocol)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        ours.bind(address)
    except OSError as error:
        log.error("cannot listen on %s port %s: %s", host, port, error.strerror)
        sys.exit(1)
    return ours


if __name__ == "__main__":
    main()
