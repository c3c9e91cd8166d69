"""Which release is tried on which schema of the clone, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from airlock.errors import AirlockError, Broken
from airlock.migration import Migration
from airlock.pairing import (
    Candidate,
    Cast,
    NotTried,
    Pair,
    Schema,
    Tried,
    candidates,
    judged,
    needs_baseline,
)
from airlock.pairing.asking import Asking
from airlock.pairing.environment import Door, address
from airlock.pairing.relay import Relay, relay
from airlock.pairing.second import placed, started, unless_astray
from airlock.plan import Plan
from airlock.request import Gate
from airlock.service import configured, log, probe
from airlock.settings import Target
from airlock.snapshot import Clone

logger = logging.getLogger(__name__)

Undo = Callable[[Migration], Awaitable[None]]


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
    stage = _Stage(target=target, clone=clone, deploy=deploy, skip=cast.skip)
    pairs, left_out = list[Pair](), _gone(cast)
    try:
        _check(target)
        await _play(stage, plan, list(candidates(cast)), undo, pairs)
    except NotTried as reason:
        left_out = str(reason)
    found = judged(pairs, plan.versions if plan.migrations else "", changes=bool(plan.migrations))
    tried = Tried(pairs=found, not_tried=left_out)
    for sentence in tried.sentences:
        logger.info("Releases on the clone: %s", sentence)
    return tried


async def _play(
    stage: _Stage, plan: Plan, who: Collection[Candidate], undo: Undo, pairs: list[Pair]
) -> None:
    expand, contract = plan.of_phase("expand"), plan.of_phase("contract")
    staying = [each for each in who if each.which != "running"]
    # The contract comes after the running release has gone.
    pairs += await stage.all(staying if contract else who, "after")
    if contract:
        await _undone(contract, undo)
        pairs += await stage.all(who, "expanded")
    if plan.migrations:
        await _undone(expand, undo)
        pairs += await stage.all(who if needs_baseline(pairs) else staying, "before")


def _gone(cast: Cast) -> str:
    if cast.running is None or cast.running.directory.is_dir():
        return ""
    return f"the folder of the running release {cast.running.release} is gone"


def _check(target: Target) -> None:
    """Raises NotTried where nothing can be started against a clone."""
    service = configured(target)
    if not target.clone.try_releases:
        raise NotTried("clone.try_releases is false")
    if service.adapter != "process":
        raise NotTried(f"with the adapter {service.adapter} Airlock cannot start a second one")
    if any(str(service.port) in re.findall("[0-9]+", word) for word in service.command):
        raise NotTried(
            f"service.command names port {service.port}, which production has. Let the service "
            "take PORT from its environment"
        )


async def _undone(migrations: Iterable[Migration], undo: Undo) -> None:
    try:
        for each in reversed(list(migrations)):
            await undo(each)
    except AirlockError as error:
        # By itself the way back was proved; what the releases wrote was in its way.
        said = f"after the releases had run, the schema did not come back: {error}"
        raise NotTried(said) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """The clone, and production's settings of the service."""

    target: Target
    clone: Clone
    deploy: int
    skip: Collection[Gate]

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
        """One release; first with sockets handed over as in production, then by itself."""
        pair = Pair(which=who.which, release=who.name, schema=schema)
        if configured(self.target).inherit_socket:
            seen, died = await self._once(who, pair, handed=True)
            # One that knows no inherited sockets has found its port taken.
            if not died:
                return seen
        seen, _ = await self._once(who, pair, handed=False)
        return seen

    async def _once(self, who: Candidate, pair: Pair, *, handed: bool) -> tuple[Pair, bool]:
        """The pair as it was seen, and whether the instance died before it was ready."""
        async with AsyncExitStack() as stack:
            here, sockets = stack.enter_context(placed(self.target, handed=handed))
            door, way = await self._door(stack)
            try:
                second = started(
                    who,
                    target=self.target,
                    here=here,
                    sockets=sockets,
                    door=door,
                    log_file=self._log_file(who, pair.schema, handed=handed),
                )
                instance = await stack.enter_async_context(second)
            except Broken as error:
                return replace(pair, failure=log.mask(self.target, str(error))), False
            http = await stack.enter_async_context(probe.client())
            asking = Asking(
                target=self.target, here=here, instance=instance, http=http, skip=self.skip
            )
            seen = await unless_astray(asking.all(pair), who, instance, self.target, door)
            if way is not None:
                seen = replace(seen, is_connected=way.connections > 0)
            return seen, seen.ready_s is None and not instance.is_alive

    async def _door(self, stack: AsyncExitStack) -> tuple[Door, Relay | None]:
        if self.target.clone.dev_url_env is not None:
            return Door(database=self.clone.database, url=self.clone.url), None
        found = address(self.clone.url)
        assert found  # noqa: S101 - for the type checker; it is our own
        folder, port = found.hosts[0]
        way = await stack.enter_async_context(relay(Path(folder) / f".s.PGSQL.{port}"))
        return Door(database=self.clone.database, port=way.port), way

    def _log_file(self, who: Candidate, schema: Schema, *, handed: bool) -> Path:
        """Gone with the clone: it may quote rows. Its name is what the instance is called."""
        which = who.which.replace(" ", "-")
        name = f"rehearsal-{self.deploy}-{which}-{schema}{'' if handed else '-alone'}"
        return self.target.clones_dir / self.clone.name / f"{name}.log"
