"""The "command" adapter: any commands that start, stop and reload (docker compose and the like).

``reload`` is used where it is given; else ``stop``, if given, then ``start``. They run in the
release's folder, must return, and are told PORT, HOST, RELEASE, RELEASE_DIRECTORY and
AIRLOCK_INSTANCE, besides the service's own variables.

It cannot promise: no gap; which process serves, where that is in a container (pid 0 then), unless
AIRLOCK_INSTANCE is handed on and echoed by the health endpoint; nor that a second call is not a
second restart.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airlock.errors import Refused
from airlock.service import (
    AS_STARTED,
    Instance,
    Release,
    Restart,
    configured,
    delegated,
    log,
    probe,
    table,
)
from airlock.settings import ServiceSettings, Target


def commands(service: ServiceSettings, *, running: bool) -> list[list[str]]:
    """What is run to get the new release serving, in order. Raises Refused when nothing can be."""
    if service.reload and running:
        return [list(service.reload)]
    if service.start:
        stop = [list(service.stop)] if service.stop and running else []
        return [*stop, list(service.start)]
    if service.reload:
        return [list(service.reload)]
    raise Refused(
        "The service's adapter is command, and neither start nor reload is set. Add start = "
        '["docker", "compose", "up", "-d"] or the like to its section.'
    )


def find(target: Target) -> Instance | None:
    """Whatever has the port; pid 0 when something has it that cannot be seen from here."""
    service = configured(target)
    inodes = table.listening(service.host, service.port)
    if not inodes:
        return None
    return _instance(target, AS_STARTED, None, sorted(table.holders(inodes)))


def _instance(target: Target, release: str, token: str | None, holders: list[int]) -> Instance:
    found = next((p for pid in holders if (p := table.read(pid)) is not None), None)
    watched = target.health.log_file
    return Instance(
        pid=found.pid if found else 0,
        create_time=found.create_time if found else 0.0,
        boot_id=table.boot_id(),
        token=token,
        release=release,
        started_at=found.started_at if found else datetime.now(UTC),
        directory=delegated.current_directory(target),
        logs=(log.mark(watched),) if watched else (),
    )


async def restart(target: Target, release: Release, *, old: Instance | None, token: str) -> Restart:
    """See ``airlock.service.restart``."""
    from airlock.service.starting import service_environ

    service = configured(target)
    before = find(target) or (old if old and old.is_alive else None)
    watched = target.health.log_file
    logs = (log.mark(watched),) if watched else ()
    planned = commands(service, running=before is not None)
    environ = service_environ(target, release, token)
    environ["RELEASE_DIRECTORY"] = str(release.directory)
    async with probe.client() as http:
        gap = probe.GapMeter(probe.public_url(target))
        async with delegated.current(target, release), gap.running(http):
            for command in planned:
                await delegated.run(target, command, environ=environ, directory=release.directory)
            ready_s = await delegated.until_answering(target, http, token=token)
            await gap.settle(2)
            gap_s = gap.gap_s if before else 0.0
    holders = sorted(table.holders(table.listening(service.host, service.port)))
    found = _instance(target, release.name, token, holders)
    return Restart(
        old=before,
        new=Instance(
            pid=found.pid,
            create_time=found.create_time,
            boot_id=found.boot_id,
            token=token,
            release=release.name,
            started_at=found.started_at,
            directory=release.directory,
            logs=logs,
        ),
        method="command",
        gap_s=gap_s,
        ready_s=ready_s,
        note="; ".join(" ".join(command) for command in planned),
    )
