"""Guards of the product, each taken away by a patch in the processes of one case.

A guard that nobody would miss is none: without it, its case has to be lost.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airlock import deploy, ledger, leftovers, lock, snapshot
from airlock.apply import Runner
from airlock.health import probe
from airlock.service import starting
from airlock.snapshot import files, manifest, physical
from tests.faults import injector

# The name of the guard that a process under test has to do without.
VARIABLE = "AIRLOCK_TEST_WITHOUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How it is taken away, and the case that is lost without it."""

    remove: Callable[[], None]
    case: str


def remove_named() -> None:
    """Take away the guard that the environment names, if it does."""
    if name := os.environ.get(VARIABLE):
        injector.refuse_unless_under_test()
        GUARDS[name].remove()


async def _nothing(*_given: Any, **_how: Any) -> tuple[()]:
    return ()


# ---------------------------------------------------------------- one at a time


def _no_fence() -> None:
    async def check(conn: Any, _lease: Any, *, begin: str = "") -> None:
        await conn.execute(f"{begin} SELECT 1")

    async def fence(*_given: Any) -> None:
        return None

    ledger.check_fence, ledger.fence = check, fence


def _no_lock() -> None:
    @asynccontextmanager
    async def hold(*_given: Any, **_how: Any) -> AsyncIterator[None]:
        yield

    lock.hold = hold


# ---------------------------------------------------------------- migrations


def _no_intent() -> None:
    """Of what runs outside a transaction. A backfill does not even start without its own."""
    alone = Runner._alone

    async def unannounced(self: Runner, script: Any, statement: Any, number: int) -> None:
        def record(done: int) -> str:
            return script.record(done) if done >= number else "SELECT 1"

        await alone(self, replace(script, record=record), statement, number)

    Runner._alone = unannounced


def _no_sweep_of_indexes() -> None:
    leftovers.sweep = _nothing


def _no_look_at_what_is_done() -> None:
    async def row(*_given: Any) -> None:
        return None

    Runner._row = row


def _no_check_of_the_schema() -> None:
    deploy._check_schema = _nothing


# ---------------------------------------------------------------- snapshots


def _no_name_of_its_own() -> None:
    """While it is written it has the name of a whole one already."""
    take = physical.take

    async def taking(found: Any, target: Any, facts: Any, folder: Path, **how: Any) -> Any:
        final = folder.with_name(folder.name.removeprefix(snapshot._TMP))
        folder.rename(final)
        done = await take(found, target, facts, final, **how)
        final.rename(folder)
        return done

    physical.take = taking


def _no_checksums() -> None:
    files._refuse_unless_same = lambda *_given: None


def _no_digest() -> None:
    manifest.digest = lambda *_given: ""


def _no_sweep_of_files() -> None:
    snapshot.sweep = lambda *_given: ()


def _no_look_at_the_origin() -> None:
    snapshot.check_origin = _nothing


# ---------------------------------------------------------------- service and alerts


def _no_identity() -> None:
    ask = probe.ask

    async def asking(*given: Any, **how: Any) -> Any:
        return replace(await ask(*given, **how), token=None, accepted_by_ours=True)

    probe.ask = asking
    starting.probe.ask = asking


def _no_key() -> None:
    enqueue = ledger.enqueue_alert

    async def enqueueing(conn: Any, number: int | None, key: str, body: str) -> None:
        await enqueue(conn, number, f"{key}-{secrets.token_hex(4)}", body)

    ledger.enqueue_alert = enqueueing


_PAUSED = "a paused runner goes on after it was taken over"
_SERVICE = "the service answers as another instance / wrong-instance"

GUARDS = {
    "the fence": Guard(
        remove=_no_fence, case=f"{_PAUSED} / forwards / apply_plan: before applying"
    ),
    "the lock of the database": Guard(
        remove=_no_lock, case="a refresh of staging takes its snapshot / forwards, lock"
    ),
    "the intent before the action": Guard(
        remove=_no_intent, case="forwards / apply_plan: 012_offers.sql, after its effect / SIGTERM"
    ),
    "the sweep of invalid indexes": Guard(
        remove=_no_sweep_of_indexes,
        case="SIGKILL while an index is built, and the same deploy again / forwards, apply_plan",
    ),
    "the look at what the ledger has": Guard(
        remove=_no_look_at_what_is_done,
        case="the answer to COMMIT is lost / forwards / apply_plan: 011_score.sql, before its"
        " COMMIT",
    ),
    "the check of the schema before the apply": Guard(
        remove=_no_check_of_the_schema,
        case="somebody alters the schema meanwhile / forwards, apply_plan",
    ),
    "the name of a snapshot that is not whole": Guard(
        remove=_no_name_of_its_own,
        case="forwards / take_snapshot: after the base backup / SIGKILL of the flow",
    ),
    "the checksums of a snapshot": Guard(
        remove=_no_checksums, case="the snapshot is bit-flipped / forwards, rehearse"
    ),
    "the digest of a manifest": Guard(
        remove=_no_digest, case="the snapshot is with an edited manifest / forwards, rehearse"
    ),
    "the origin of a snapshot": Guard(
        remove=_no_look_at_the_origin,
        case="the snapshot is of an older schema / forwards, rehearse",
    ),
    "the sweep of half snapshots and clones": Guard(
        remove=_no_sweep_of_files,
        case="forwards / take_snapshot: after the base backup / SIGKILL of the flow",
    ),
    "the identity of an instance": Guard(remove=_no_identity, case=_SERVICE),
    "the key of an alert": Guard(
        remove=_no_key, case="rollback / roll_back: after the intent / SIGKILL of the flow"
    ),
}
