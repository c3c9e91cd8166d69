"""The listening socket, handed from one instance to the next."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from airlock.service import Instance, Method, ending, table
from airlock.settings import ServiceSettings

BACKLOG = 2048


@dataclass(slots=True, kw_only=True)
class Sockets:
    """What a new instance inherits: the public socket, and one only it answers on."""

    public: socket.socket
    own: socket.socket

    @property
    def probe_url(self) -> str:
        return f"http://127.0.0.1:{self.own.getsockname()[1]}"

    @property
    def inode(self) -> int:
        return os.fstat(self.public.fileno()).st_ino

    def close(self) -> None:
        """Let go of Airlock's own handles; the instance keeps its own."""
        self.public.close()
        self.own.close()


def bind(service: ServiceSettings, *, listen: bool) -> socket.socket:
    """A new public socket, shareable. Raises OSError when somebody holds the port alone."""
    family, _, _, _, address = socket.getaddrinfo(
        service.host, service.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(address)
        if listen:
            opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def can_share(service: ServiceSettings) -> bool:
    """Whether whoever holds the port lets another socket have it too."""
    try:
        bind(service, listen=False).close()
    except OSError:
        return False
    return True


def _own_socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.bind(("127.0.0.1", 0))
    opened.listen(BACKLOG)
    return opened


def inherit(service: ServiceSettings, old: Instance | None) -> tuple[Sockets, Method] | None:
    """The sockets for a new instance, or None when the port can only be had after the old one.

    From the old instance itself where the kernel allows it; else one that shares the port.
    """
    if not service.inherit_socket:
        return None
    taken = _take(service, old) if old else None
    method: Method = (
        "inherited socket" if taken else ("reuseport overlap" if old else "first start")
    )
    if taken is None:
        try:
            # Beside an old one it does not listen yet: connections would wait in a queue that
            # nobody serves until the new instance is up.
            taken = bind(service, listen=old is None)
        except OSError:
            return None
    return Sockets(public=taken, own=_own_socket()), method


def _take(service: ServiceSettings, old: Instance) -> socket.socket | None:
    inodes = table.listening(service.host, service.port)
    for process in ending.family(old):
        for inode, descriptor in table.descriptors(process.pid).items():
            if inode in inodes:
                with contextlib.suppress(OSError):
                    return table.take_socket(process.pid, descriptor)
    return None
