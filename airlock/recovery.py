"""What becomes of a deploy whose runner is gone: the rule, and the taking over.

Everything is read from the ledger and from what is really there; nothing of the old run is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airlock import ledger, lock, migration, plan, preview, record, refresh, sessions, snapshot
from airlock.errors import Refused
from airlock.ledger import Deploy, Lease
from airlock.plan import AppliedMigration
from airlock.postgres import Conn
from airlock.request import DeployRequest
from airlock.settings import Target

log = logging.getLogger(__name__)

# Who asks for a deploy, and why, makes no other deploy of it.
_OF_PEOPLE = ("requester", "reason")
# What was approved or backed up longer ago is done again.
CONTINUE_S = 3600.0
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
    run: the run of Prefect that had it before.
    same: whether whoever takes it over has asked for this very deploy.
    continues: whether it is that one, and simply goes on.
    """

    lease: Lease
    row: Deploy
    remedy: Remedy
    run: str | None = None
    same: bool = False
    continues: bool = False

    @property
    def sentence(self) -> str:
        return f"Deploy {self.row.id} of {self.row.target} was cut off: {self.remedy.sentence}"


def remedy(row: Deploy, done: Sequence[AppliedMigration], *, swapped: bool = False) -> Remedy:
    """The rule.

    What is in production as a whole has only to be checked, and the checks take it back where it is
    unwell. A part of it has been rehearsed nowhere, so it goes back, which has been. A plan with a
    contract has two stages at which it is whole: before that, and after it.
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
    # Of the phase that is under way, and of those before it.
    before_contract = row.state not in ledger.CONTRACT
    due = row.planned.of_phase("expand") if before_contract else row.planned.migrations
    until = " up to the contract" if len(due) < len(row.planned.migrations) else ""
    if row.state not in ("applying", "contracting") or there == len(due):
        why = f"it was {row.state}, with all its migrations{until} there"
        return Remedy(way="forwards", why=why)
    why = f"{there} of its {len(due)} migrations{until} are there as a whole"
    return Remedy(way="back", why=why)


def _of_refresh(*, swapped: bool) -> Remedy:
    if swapped:
        return Remedy(way="forwards", why="the copy serves already")
    return Remedy(way="back", why="the copy does not serve yet")


async def check_retry(target: Target, flow_run: str, age_s: float) -> None:
    """Raises Refused where a run that is started again is older than what was deployed last.

    To be called with the lock of the database held. What the run opened itself, whoever brought it
    to an end, is no reason.
    age_s: since its first start, by the clock that knows that.
    """
    async with ledger.connection(target) as conn:
        last = await ledger.last(conn)
        if last is None:
            return
        own = await ledger.last_of_run(conn, flow_run)
        now = await conn.fetchval("SELECT pg_catalog.clock_timestamp()")
    opened_before_s = (now - last.created_at).total_seconds()
    is_older = age_s > opened_before_s if own is None else own < last.id
    if is_older:
        raise Refused(
            f"This run was started again, and {last.kind} {last.id} of {target.name} was opened "
            f"since its first start: {last.headline}. What it asks for may be outdated. Nothing "
            "was done. Start a new one instead of a retry."
        )


async def take_up(
    target: Target, wanted: DeployRequest | None = None, *, flow_run: str | None = None
) -> Taken | None:
    """Take over what a dead runner left unfinished; None where there is nothing of that kind.

    To be called with the lock of the database held. From here on the old runner can write nothing,
    and nothing that it started in the database goes on.
    wanted: what the caller would deploy anyway. If it is what was cut off, it goes on.
    flow_run: the caller's run of Prefect; what it has taken before, not hearing so, is its own.
    Raises Transient when what the old runner started does not end.
    """
    async with ledger.connection(target) as conn:
        found = await _left(conn, flow_run)
        if found is not None and found.is_cut_off and not found.runner_gone:
            # Its heart may have stopped with the server's, and beat again in a moment.
            await asyncio.sleep(2 * lock.HEARTBEAT_S)
            found = await _left(conn, flow_run)
        if found is None:
            return None
        # Its outcome is told from an outbox of this version.
        await ledger.ensure(conn)
        return await _take(conn, target, found, wanted, flow_run)


async def _left(conn: Conn, flow_run: str | None) -> Deploy | None:
    found = await ledger.last(conn)
    if found is None or not found.is_open or found.state == "stranded":
        return None
    ours = flow_run is not None and found.flow_run == flow_run
    return found if ours or found.is_cut_off else None


async def _take(
    conn: Conn, target: Target, found: Deploy, wanted: DeployRequest | None, flow_run: str | None
) -> Taken:
    # First: what the old runner began may be done by the time it is ended.
    lease = await sessions.take_over(conn, found, flow_run=flow_run)
    row = await ledger.deploy(conn, found.id)
    same = wanted is not None and _is_same(row, wanted)
    continues = wanted is not None and same and await _goes_on(conn, target, found, row, wanted)
    if continues:
        which = Remedy(way="forwards", why="the same deploy was asked for again")
    else:
        done = await ledger.migrations_of(conn, row.id)
        swapped = row.kind == "refresh" and await refresh.is_swapped(target, row)
        which = remedy(row, done, swapped=swapped)
    taken = Taken(
        lease=lease, row=row, remedy=which, run=found.flow_run, same=same, continues=continues
    )
    said = f"{found.holder} was last heard of {found.silent_s:.0f} s ago, {row.state}; "
    await ledger.event(conn, lease, ledger.CUT_OFF, "done", said + which.sentence)
    log.info("%s", taken.sentence)
    return taken


async def _goes_on(
    conn: Conn, target: Target, found: Deploy, row: Deploy, wanted: DeployRequest
) -> bool:
    """Whether the deploy that was cut off is still the one that is asked for."""
    if row.state == "rolling_back":
        return False
    untouched = row.state in ledger.UNTOUCHED
    if untouched and found.silent_s > CONTINUE_S:
        return False
    applied = [each for each in await ledger.applied(conn) if each.deploy != row.id]
    try:
        files = migration.read_folder(target.migrations_dir)
        now = plan.pending(files, applied, up_to=wanted.up_to)
        if untouched:
            schema = await preview.undrifted(conn, target, let_pass="drift" in wanted.skip)
            if schema.fingerprint != row.planned.schema_before:
                return False
    except Refused:
        return False  # it is brought to an end, and the new one hears why
    return tuple(each.checksum for each in now) == row.planned.checksums


def _is_same(row: Deploy, wanted: DeployRequest) -> bool:
    if row.kind != "deploy":
        return False
    was, now = record.load(dict[str, Any], row.request), wanted.model_dump(mode="json")
    return all(was.get(name) == now[name] for name in now if name not in _OF_PEOPLE)


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
