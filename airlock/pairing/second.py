"""A second instance of the service, for the clone: it ends with its trial, away from production.

It has production's credentials for everything but the database.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from airlock.errors import Refused
from airlock.pairing import Candidate
from airlock.pairing.environment import Door, address, led_to_clone
from airlock.server import free_port
from airlock.service import Instance, configured, ending, log, probe, starting, table
from airlock.service.sockets import Sockets
from airlock.settings import ServiceSettings, Target

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# The kernel's table of sockets takes it tens of milliseconds to write.
_LOOK_S = 0.3


@contextmanager
def placed(target: Target, *, handed: bool) -> Generator[tuple[Target, Sockets | None]]:
    """The target with its service on a loopback port of its own, and nothing else to look at.

    handed: with listening sockets, as production's instances get them.
    """
    made = _sockets() if handed else None
    port = made.public.getsockname()[1] if made else free_port()
    service = configured(target).model_copy(update={"host": LOOPBACK, "port": port})
    health = target.health.model_copy(
        update={"url": f"http://{LOOPBACK}:{port}{probe.path(target)}", "log_file": None}
    )
    try:
        yield target.model_copy(update={"service": service, "health": health}), made
    finally:
        if made:
            made.close()


def _sockets() -> Sockets:
    """As in production: the public one and the instance's own, both on loopback."""
    public, own = (socket.create_server((LOOPBACK, 0)) for _ in range(2))
    return Sockets(public=public, own=own)


@asynccontextmanager
async def started(
    who: Candidate,
    *,
    target: Target,
    here: Target,
    sockets: Sockets | None,
    door: Door,
    log_file: Path,
) -> AsyncGenerator[Instance]:
    """The release started against the clone, gone with all that it started when the block ends.

    target, here: as for ``Asking``. log_file: named after the instance's token.
    Raises NotTried where it might reach production, Broken when it cannot be executed.
    """
    token, probe_url = log_file.stem, sockets.probe_url if sockets else None
    environ = _environ(who, target, here, door, token, probe_url)
    fds = (sockets.public.fileno(), sockets.own.fileno()) if sockets else ()
    command = starting.launch_command(
        configured(target).command,
        fds=fds,
        log_file=log_file,
        directory=who.release.directory,
        tether=True,
    )
    mark = log.mark(log_file)
    async with starting.tethered(command, environ, fds) as pid:
        if sockets:
            # Where the instance has ended, nobody listens.
            sockets.close()
        process = table.read(pid)
        yield Instance(
            pid=pid,
            create_time=process.create_time if process else -1.0,
            boot_id=table.boot_id(),
            token=token,
            release=who.name,
            started_at=datetime.now(UTC),
            directory=who.release.directory,
            probe_url=probe_url,
            logs=(mark,),
        )


def _environ(
    who: Candidate, target: Target, here: Target, door: Door, token: str, probe_url: str | None
) -> dict[str, str]:
    environ = starting.service_environ(here, who.release, token, probe_url)
    # By this, an instance is known to be production's.
    del environ["AIRLOCK_SERVICE"]
    given = starting.own_environ(target)
    led = led_to_clone(
        given,
        name=configured(target).database_env,
        production=(target.database_url, target.replication_url),
        door=door,
    )
    ours = {name: text for name, text in environ.items() if name not in given}
    facts = {name: environ[name] for name in ("HOST", "PORT", "RELEASE", "AIRLOCK_INSTANCE")}
    return {**led, **ours, **facts}


async def unless_astray(
    work: Coroutine[Any, Any, T], who: Candidate, instance: Instance, target: Target, door: Door
) -> T:
    """What the work gives. Raises Refused as soon as the instance turns to production."""
    service = configured(target)
    servers = await _servers(target) - await _resolved(door.url)
    working = asyncio.ensure_future(work)
    try:
        done = False
        while not done:
            await asyncio.wait((working,), timeout=_LOOK_S)
            # Looked at once more when all is done.
            done = working.done()
            if did := await asyncio.to_thread(_astray, instance, service, servers):
                raise Refused(
                    f"Started against the clone, {who} {did}, and was ended. Let the service take "
                    "its database and its port from its environment alone (settings "
                    "service.database_env and service.port), or set clone.try_releases = false. "
                    "No migration was applied to production."
                )
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _astray(instance: Instance, service: ServiceSettings, servers: set[table.Address]) -> str:
    """What the instance has of production's; nothing as it should be."""
    held = {inode for each in ending.family(instance) for inode in table.descriptors(each.pid)}
    if held & table.listening(service.host, service.port):
        return f"listened on production's port {service.port}"
    if servers and (server := table.connected(held, servers)) is not None:
        return f"connected to production's database server, {server[0]} port {server[1]}"
    return ""


async def _servers(target: Target) -> set[table.Address]:
    given = starting.own_environ(target).get(configured(target).database_env, "")
    found = [await _resolved(url) for url in (target.database_url, target.replication_url, given)]
    return set[table.Address]().union(*found)


async def _resolved(url: str) -> set[table.Address]:
    """The TCP addresses behind a PostgreSQL URL; a socket folder has none."""
    found: set[table.Address] = set()
    for host, port in parsed.hosts if (parsed := address(url)) else ():
        if host and not host.startswith("/"):
            with suppress(OSError):
                infos = await asyncio.get_running_loop().getaddrinfo(host, port)
                found |= {(table.plain_host(str(info[4][0])), port) for info in infos}
    return found
