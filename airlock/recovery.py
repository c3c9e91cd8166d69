"""What becomes of a deploy whose runner is gone: the rule, and the taking over.

Everything is read from the ledger and from what is really there; nothing of the old run is needed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from airlock import ledger, preview, refresh, sessions, snapshot
from airlock.errors import Refused
from airlock.ledger import Deploy, Lease
from airlock.plan import AppliedMigration
from airlock.postgres import Conn
from airlock.request import DeployRequest
from airlock.settings import Target

log = logging.getLogger(__name__)

# Who asks, and when they want to be told, makes no other deploy of it.
_OF_PEOPLE = ("requester", "reason")
SWEEPS = 10
SWEEP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Which way an unfinished deploy goes on, and why."""

    way: Literal["forwards", "back"]
    why: str

    @property
    def sentence(self) -> str:
        said = "it is finished" if self.way == "forwards" else "it goes back"
        return f"{self.why}, so {said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An unfinished deploy that is ours now.

    row: as it was found.
    same: whether whoever takes it over has asked for this very deploy.
    continues: whether it is that one, and simply goes on.
    """

    lease: Lease
    row: Deploy
    remedy: Remedy
    same: bool = False
    continues: bool = False

    @property
    def sentence(self) -> str:
        return f"Deploy {self.row.id} of {self.row.target} was cut off: {self.remedy.sentence}"


def remedy(row: Deploy, done: Sequence[AppliedMigration], *, swapped: bool = False) -> Remedy:
    """The rule.

    What is in production as a whole has only to be checked, and the checks take it back where it is
    unwell. A part of it has been rehearsed nowhere, so it goes back, which has been.
    done: what the deploy did with its migrations.
    swapped: whether a refresh's copy is what serves.
    """
    if row.state == "rolling_back":
        return Remedy(way="back", why="it was on its way back")
    if row.state in ledger.UNTOUCHED:
        return Remedy(way="back", why=f"it was {row.state} and had touched nothing")
    if row.kind == "refresh":
        return _of_refresh(swapped=swapped)
    there = sum(each.state == "applied" for each in done)
    wanted = len(row.planned.migrations)
    if row.state != "applying" or there == wanted:
        return Remedy(way="forwards", why=f"it was {row.state}, with all its migrations there")
    return Remedy(way="back", why=f"{there} of its {wanted} migrations are there as a whole")


def _of_refresh(*, swapped: bool) -> Remedy:
    if swapped:
        return Remedy(way="forwards", why="the copy serves already")
    return Remedy(way="back", why="the copy does not serve yet")


async def take_up(target: Target, wanted: DeployRequest | None = None) -> Taken | None:
    """Take over what a dead runner left unfinished; None where there is nothing of that kind.

    To be called with the lock of the database held. From here on the old runner can write nothing,
    and nothing that it started in the database goes on.
    wanted: what the caller would deploy anyway. If it is what was cut off, it goes on.
    Raises Transient when what the old runner started does not end.
    """
    async with ledger.connection(target) as conn:
        for last in await ledger.recent(conn):
            if last.is_cut_off:
                return await _take(conn, target, last, wanted)
    return None


async def clear_up(target: Target) -> None:
    """Remove what the dead runner left on this machine. Never fails: the next snapshot sweeps, too.

    Again until nothing is found: a server of its clone may still be ending.
    """
    try:
        for _ in range(SWEEPS):
            if not await asyncio.to_thread(snapshot.sweep, target):
                return
            await asyncio.sleep(SWEEP_S)
    except OSError as error:
        log.warning("What was left of %s was not removed: %s", target.name, error)


async def _take(conn: Conn, target: Target, last: Deploy, wanted: DeployRequest | None) -> Taken:
    # Its outcome is told from an outbox of this version.
    await ledger.ensure(conn)
    same = wanted is not None and _is_same(last, wanted)
    continues = wanted is not None and same and await _goes_on(target, last, wanted)
    if continues:
        found = Remedy(way="forwards", why="the same deploy was asked for again")
    else:
        done = await ledger.migrations_of(conn, last.id)
        swapped = last.kind == "refresh" and await refresh.is_swapped(target, last)
        found = remedy(last, done, swapped=swapped)
    lease = await sessions.take_over(conn, last)
    taken = Taken(lease=lease, row=last, remedy=found, same=same, continues=continues)
    said = f"{last.holder} was last heard of {last.silent_s:.0f} s ago, {last.state}; "
    await ledger.event(conn, lease, ledger.CUT_OFF, "done", said + found.sentence)
    log.info("%s", taken.sentence)
    return taken


async def _goes_on(target: Target, last: Deploy, wanted: DeployRequest) -> bool:
    """Whether a cut-off deploy is the one that is asked for, and may simply go on."""
    if last.state == "rolling_back":
        return False
    if last.state not in ledger.UNTOUCHED:
        return True
    try:
        now, _ = await preview.look(target, wanted.up_to, wanted.skip, besides=last.id)
    except Refused:
        return False  # it is closed, and the new one hears why
    was = last.planned
    return (now.checksums, now.schema_before) == (was.checksums, was.schema_before)


def _is_same(last: Deploy, wanted: DeployRequest) -> bool:
    if last.kind != "deploy":
        return False
    was, now = json.loads(last.request), wanted.model_dump(mode="json")
    return all(was.get(name) == now[name] for name in now if name not in _OF_PEOPLE)
