"""Starting releases against the clone, and asking them what the health check will ask."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airlock.errors import AirlockError, Broken, Refused
from airlock.migration import Migration
from airlock.pairing import (
    Candidate,
    Cast,
    Endpoint,
    NotTried,
    Pair,
    Schema,
    Tried,
    candidates,
    judged,
    needs_baseline,
)
from airlock.pairing.environment import Door, address, led_to_clone
from airlock.pairing.relay import Relay, relay
from airlock.plan import Plan
from airlock.server import free_port
from airlock.service import Instance, LogMark, configured, ending, log, probe, starting, table
from airlock.service.sockets import Sockets
from airlock.settings import ServiceSettings, Smoke, Target
from airlock.snapshot import Clone

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

Undo = Callable[[Migration], Awaitable[None]]

# The kernel's table of sockets takes it tens of milliseconds to write.
_LOOK_S = 0.3
_POLL_S = 0.05
# A process that ends closes its sockets first, and is gone a moment later.
_ENDING_S = 0.5
# Of a line of the log, and of what an endpoint said.
_SHOWN_CHARS = 300
_LOOPBACK = "127.0.0.1"


async def play(
    target: Target, clone: Clone, plan: Plan, cast: Cast, undo: Undo, *, deploy: int
) -> Tried:
    """Each release on each schema that it meets, from the one after the plan back to before it.

    The clone stands after the plan, all proofs of the plan are made, and nobody needs it any more:
    the releases write what they like.
    undo: takes one migration back.
    Raises Refused naming a release that the change breaks, or that does not work.
    """
    if cast.running is None and cast.new is None:
        return Tried(not_tried=cast.not_tried)
    stage = _Stage(target=target, clone=clone, deploy=deploy, skip=frozenset(cast.skip))
    contract = [each for each in plan.migrations if _is_contract(each)]
    expand = [each for each in plan.migrations if not _is_contract(each)]
    who = list(candidates(cast))
    pairs: list[Pair] = []
    left_out = _gone(cast)
    try:
        stage.check(who)
        # The contract comes after the running release has gone.
        latest = [each for each in who if each.which != "running"] if contract else who
        pairs += await stage.all(latest, "after")
        if contract:
            await _undone(contract, undo)
            pairs += await stage.all(who, "expanded")
        if plan.migrations:
            await _undone(expand, undo)
            known = needs_baseline(pairs)
            pairs += await stage.all([c for c in who if known or c.which != "running"], "before")
    except NotTried as reason:
        left_out = str(reason)
    found = judged(pairs, plan.versions if plan.migrations else "", changes=bool(plan.migrations))
    tried = Tried(pairs=found, not_tried=left_out)
    for sentence in tried.sentences:
        logger.info("Releases on the clone: %s", sentence)
    return tried


def _gone(cast: Cast) -> str:
    if cast.running is None or cast.running.directory.is_dir():
        return ""
    return f"the folder of the running release {cast.running.release} is gone"


def _is_contract(each: Migration) -> bool:
    return getattr(each, "phase", "expand") == "contract"


async def _undone(migrations: Iterable[Migration], undo: Undo) -> None:
    try:
        for each in reversed(list(migrations)):
            await undo(each)
    except AirlockError as error:
        # By itself the way back was proved; what the releases wrote was in its way.
        raise NotTried(f"after the releases had run, the schema did not come back: {error}") from (
            error
        )


@dataclass(slots=True, kw_only=True)
class _Stage:
    """The clone, and production's settings of the service."""

    target: Target
    clone: Clone
    deploy: int
    skip: frozenset[str]

    def check(self, who: list[Candidate]) -> None:
        """Raises NotTried where nothing can be started against a clone."""
        service = configured(self.target)
        if not self.target.clone.try_releases:
            raise NotTried("clone.try_releases is false")
        if service.adapter != "process":
            raise NotTried(f"with the adapter {service.adapter} Airlock cannot start a second one")
        if not who:
            raise NotTried("there is no release to start")
        if any(str(service.port) in _numbers(word) for word in service.command):
            raise NotTried(
                f"service.command names port {service.port}, which production has. Let the service "
                "take PORT from its environment"
            )

    async def all(self, who: Iterable[Candidate], schema: Schema) -> list[Pair]:
        """Each of them on the schema that the clone has now, at the same time."""
        tasks = [asyncio.create_task(self._pair(each, schema)) for each in who]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pair(self, who: Candidate, schema: Schema) -> Pair:
        """One release, first with sockets handed over as in production, then by itself."""
        pair = Pair(which=who.which, release=who.name, schema=schema)
        if configured(self.target).inherit_socket:
            made, may_bind_itself = await self._once(who, pair, handed=True)
            if not may_bind_itself:
                return made
        made, _ = await self._once(who, pair, handed=False)
        return made

    async def _once(self, who: Candidate, pair: Pair, *, handed: bool) -> tuple[Pair, bool]:
        """The pair as it was seen, and whether the service may want to bind its own port."""
        async with AsyncExitStack() as stack:
            sockets = _sockets(stack) if handed else None
            port = sockets.public.getsockname()[1] if sockets else free_port()
            here = _placed(self.target, port)
            try:
                door, seen = await self._door(stack)
                instance = await stack.enter_async_context(
                    self._started(who, here, pair.schema, sockets, door)
                )
            except Broken as error:
                return replace(pair, failure=self._shown(str(error))), False
            if sockets is not None:
                sockets.close()
            http = await stack.enter_async_context(probe.client())
            asking = self._asked(pair, here, instance, http)
            made, died = await self._unless_astray(who, instance, door, asking)
            if seen is not None:
                made = replace(made, is_connected=seen.connections > 0)
            return made, handed and died

    async def _door(self, stack: AsyncExitStack) -> tuple[Door, Relay | None]:
        if self.target.clone.dev_url_env is not None:
            return Door(database=self._database, url=self.clone.url), None
        found = address(self.clone.url)
        assert found  # noqa: S101 - for the type checker; it is our own
        folder, port = found.hosts[0]
        seen = await stack.enter_async_context(relay(Path(folder) / f".s.PGSQL.{port}"))
        return Door(database=self._database, port=seen.port), seen

    @property
    def _database(self) -> str:
        return self.clone.database

    @asynccontextmanager
    async def _started(
        self, who: Candidate, here: Target, schema: Schema, sockets: Sockets | None, door: Door
    ) -> AsyncGenerator[Instance]:
        """The release started against the clone, gone with all it started when the block ends."""
        token = f"rehearsal-{self.deploy}-{who.which.replace(' ', '-')}-{schema}"
        # Gone with the clone: it may quote rows.
        log_file = self.target.clones_dir / self.clone.name / f"{token}.log"
        probe_url = sockets.probe_url if sockets else None
        environ = starting.service_environ(here, who.release, token, probe_url)
        # By this, an instance is known to be production's.
        del environ["AIRLOCK_SERVICE"]
        given = starting.own_environ(self.target)
        led = led_to_clone(
            given,
            name=configured(self.target).database_env,
            production=(self.target.database_url, self.target.replication_url),
            door=door,
        )
        facts = {name: text for name, text in environ.items() if name not in given}
        facts |= {name: environ[name] for name in ("HOST", "PORT", "RELEASE", "AIRLOCK_INSTANCE")}
        fds = (sockets.public.fileno(), sockets.own.fileno()) if sockets else ()
        command = starting.launch_command(
            configured(self.target).command,
            fds=fds,
            log_file=log_file,
            directory=who.release.directory,
            tether=True,
        )
        mark = log.mark(log_file)
        async with starting.tethered(command, {**led, **facts}, fds) as pid:
            process = table.read(pid)
            yield Instance(
                pid=pid,
                create_time=process.create_time if process else -1.0,
                boot_id=table.boot_id(),
                token=token,
                release=who.release.name,
                started_at=datetime.now(UTC),
                directory=who.release.directory,
                probe_url=probe_url,
                logs=(mark,),
            )

    async def _asked(
        self, pair: Pair, here: Target, instance: Instance, http: httpx.AsyncClient
    ) -> tuple[Pair, bool]:
        """The pair as it was seen, and whether the instance died before it was ready."""
        ready_s, failure = await self._ready(here, instance, http)
        if failure:
            lines = log.tail(self.target, instance.logs)
            failure = self._shown(f"{failure}. Its last lines:\n{lines}")
            return replace(pair, failure=failure), not instance.is_alive
        made = replace(pair, ready_s=ready_s)
        if "smoke" not in self.skip:
            smoke = here.health.smoke
            asked = [
                await self._endpoint(here, instance, each, http)
                for each in smoke
                if instance.is_alive
            ]
            made = replace(made, endpoints=tuple(asked))
        if not instance.is_alive:
            lines = log.tail(self.target, instance.logs)
            made = replace(made, failure=self._shown(f"it ended. Its last lines:\n{lines}"))
        return replace(made, log_error=self._log_error(instance.logs)), False

    async def _ready(
        self, here: Target, instance: Instance, http: httpx.AsyncClient
    ) -> tuple[float, str]:
        """Seconds until the first good answer, and why there was none. The port is its alone."""
        service, begun, last = configured(here), time.monotonic(), "none"
        url = probe.public_url(here)
        while (waited_s := time.monotonic() - begun) < service.ready_s:
            asking = asyncio.ensure_future(
                probe.ask(http, url, timeout_s=here.health.timeout_s, host=self._host)
            )
            try:
                while not asking.done() and instance.is_alive:
                    await asyncio.wait((asking,), timeout=_POLL_S)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            waited_s = time.monotonic() - begun
            if not instance.is_alive:
                return waited_s, f"it ended {waited_s:.1f} s after its start"
            if (answer := asking.result()).is_good:
                return round(waited_s, 3), ""
            last = f"{answer.detail}: {answer.body}" if answer.body else answer.detail
            await asyncio.sleep(_POLL_S)
        return waited_s, f"it was not ready within {service.ready_s:g} s; last answer: {last}"

    @property
    def _host(self) -> str:
        """As the service is called in production; some answer to nothing else."""
        return urlsplit(probe.public_url(self.target)).netloc.rpartition("@")[2]

    async def _endpoint(
        self, here: Target, instance: Instance, smoke: Smoke, http: httpx.AsyncClient
    ) -> Endpoint:
        path = smoke.path if smoke.path.startswith("/") else f"/{smoke.path}"
        answer = await probe.ask(
            http,
            f"{probe.local_base(configured(here))}{path}",
            timeout_s=here.health.timeout_s,
            host=self._host,
            status=smoke.status,
            method=smoke.method,
        )
        until = time.monotonic() + (_ENDING_S if answer.closed else 0)
        while instance.is_alive and time.monotonic() < until:  # noqa: ASYNC110 – a clock
            await asyncio.sleep(_POLL_S)
        said = f": {answer.body}" if answer.body else ""
        return Endpoint(
            name=f"{smoke.method} {path.partition('?')[0]}",
            ok={"good": True, "bad": False, "silent": None}[answer.kind],
            detail=self._shown(answer.detail + said),
        )

    def _log_error(self, marks: Iterable[LogMark]) -> str:
        errors = [line for each in marks for line in log.error_lines(log.since(each))]
        tolerated = "log_errors" in self.skip or len(errors) <= self.target.health.max_log_errors
        return "" if tolerated else self._shown(errors[0].strip()[:_SHOWN_CHARS])

    def _shown(self, text: str) -> str:
        return log.mask(self.target, text)

    async def _unless_astray(
        self, who: Candidate, instance: Instance, door: Door, asking: Awaitable[tuple[Pair, bool]]
    ) -> tuple[Pair, bool]:
        """What is asked, unless the instance turns to production meanwhile: Refused."""
        service = configured(self.target)
        servers = await self._servers() - await _resolved(door.url)
        working = asyncio.ensure_future(asking)
        try:
            while True:
                await asyncio.wait((working,), timeout=_LOOK_S)
                done = working.done()
                if did := await asyncio.to_thread(_astray, instance, service, servers):
                    raise Refused(
                        f"Started against the clone, {who} {did}, and was ended. Let the service "
                        "take its database and its port from its environment alone (settings "
                        "service.database_env and service.port), or set clone.try_releases = "
                        "false. No migration was applied to production."
                    )
                if done:
                    return working.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _servers(self) -> set[table.Address]:
        given = starting.own_environ(self.target).get(configured(self.target).database_env, "")
        urls = (self.target.database_url, self.target.replication_url, given)
        return set[table.Address]().union(*[await _resolved(url) for url in urls])


def _astray(instance: Instance, service: ServiceSettings, servers: set[table.Address]) -> str:
    """What the instance has of production's; nothing as it should be."""
    held = {inode for each in ending.family(instance) for inode in table.descriptors(each.pid)}
    if held & table.listening(service.host, service.port):
        return f"listened on production's port {service.port}"
    if servers and (server := table.connected(held, servers)) is not None:
        return f"connected to production's database server, {server[0]} port {server[1]}"
    return ""


def _numbers(word: str) -> list[str]:
    return "".join(each if each.isdigit() else " " for each in word).split()


def _placed(target: Target, port: int) -> Target:
    """The target with its service on that loopback port, and nothing else of it to look at."""
    service = configured(target).model_copy(update={"host": _LOOPBACK, "port": port})
    health = target.health.model_copy(
        update={"url": f"http://{_LOOPBACK}:{port}{probe.path(target)}", "log_file": None}
    )
    return target.model_copy(update={"service": service, "health": health})


def _sockets(stack: AsyncExitStack) -> Sockets:
    """As in production: the public one and the instance's own, both on loopback."""
    public, own = (socket.create_server((_LOOPBACK, 0)) for _ in range(2))
    made = Sockets(public=public, own=own)
    stack.callback(made.close)
    return made


async def _resolved(url: str) -> set[table.Address]:
    """The TCP addresses behind a PostgreSQL URL; a socket folder has none."""
    found: set[table.Address] = set()
    for host, port in parsed.hosts if (parsed := address(url)) else ():
        if host and not host.startswith("/"):
            with suppress(OSError):
                infos = await asyncio.get_running_loop().getaddrinfo(host, port)
                found |= {(table.plain_host(str(info[4][0])), port) for info in infos}
    return found
