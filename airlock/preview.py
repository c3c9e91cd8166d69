"""What a deploy would do, and whether it may: folder, ledger and live schema held together.

Reads only, and imports little: the reading commands live on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from airlock import backfill, ledger, migration, phases, plan
from airlock.catalogue import Catalogue, diff
from airlock.errors import Refused
from airlock.introspection import read_catalogue, read_guard
from airlock.ledger import Deploy
from airlock.plan import Plan
from airlock.postgres import Conn
from airlock.request import Gate
from airlock.settings import Target, check_env_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The schema that a target has now.

    catalogue: None where the ledger already has it.
    drift: how it differs from what the last deploy left, where that was let pass.
    """

    fingerprint: str
    catalogue: Catalogue | None
    drift: str = ""


async def preview(target: Target, *, up_to: int | None = None, skip: Collection[Gate] = ()) -> Plan:
    """What a deploy would do. Reads only.

    Raises Refused when a deploy is open, when folder and ledger disagree, when the phases of the
    pending migrations do not fit into one deploy, or when production's schema is not what the
    ledger last saw, unless "drift" is left out.
    """
    return (await look(target, up_to, skip))[0]


async def look(
    target: Target,
    up_to: int | None = None,
    skip: Collection[Gate] = (),
) -> tuple[Plan, Schema]:
    """The plan, and the schema that it was made for."""
    check_env_files(target)
    files = migration.read_folder(target.migrations_dir)
    async with ledger.connection(target) as conn:
        last = await ledger.last(conn)
        if last is not None and last.is_open:
            raise Refused(unfinished(last))
        applied = await ledger.applied(conn)
        pending = plan.pending(files, applied, up_to=up_to)
        await backfill.check(conn, pending)
        schema = await undrifted(conn, target, let_pass="drift" in skip)
        if not applied and await _is_empty(conn, schema):
            pending = phases.at_once(pending)
    phases.check(pending)
    planned = Plan(
        target=target.name,
        head=applied[-1].label if applied else None,
        migrations=pending,
        schema_before=schema.fingerprint,
    )
    return planned, schema


async def _is_empty(conn: Conn, schema: Schema) -> bool:
    catalogue = schema.catalogue or await ledger.load_catalogue(conn, schema.fingerprint)
    return not catalogue.tables


def unfinished(last: Deploy) -> str:
    """Why nothing may start while this deploy is open, and what to do."""
    if last.is_asked:
        return (
            f"Deploy {last.id} of {last.target} is not finished: it waits for a person's approval. "
            f"Decide first: {last.next_command}"
        )
    return (
        f"Deploy {last.id} of {last.target} is not finished: it is {last.state}, held by "
        f"{last.holder}, last heard of at {last.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC. "
        + (
            f"Mend what it names, then: airlock rollback {last.target}"
            if last.state == "stranded"
            else f"If it no longer runs: airlock recover {last.target}"
        )
    )


async def undrifted(conn: Conn, target: Target, *, let_pass: bool = False) -> Schema:
    """The schema, if it is what the last deploy left. Raises Refused with the difference.

    let_pass: take another one as well, and say how it differs.
    """
    seen = await ledger.last_seen(conn)
    if seen and seen.guard and seen.guard == await read_guard(conn):
        return Schema(fingerprint=seen.fingerprint, catalogue=None)
    found = await read_catalogue(conn)
    if seen is None or seen.fingerprint == found.fingerprint:
        return Schema(fingerprint=found.fingerprint, catalogue=found)
    drift = diff(await ledger.load_catalogue(conn, seen.fingerprint), found).render()
    if let_pass:
        return Schema(fingerprint=found.fingerprint, catalogue=found, drift=drift)
    raise Refused(
        f"The schema of {target.name} is not what the last deploy left: somebody changed it by "
        f"hand.\n{drift}\n"
        "Take the change back, or put it into a migration after taking it back."
    )
