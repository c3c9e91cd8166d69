"""What must be true after a case: production deployed or exactly as before, and nothing left over.

Each violation is a sentence; none is good.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import httpx

from airlock import ledger
from airlock.errors import Refused
from airlock.introspection import read_catalogue
from airlock.postgres import quote_ident
from airlock.snapshot import manifest
from tests import own
from tests.people import connect
from tests.stage import Stage

# How long what is ending may take to be gone, on a machine that is busy with other things as well.
SETTLED_S = 30.0
# A run of Prefect in one of these goes no further.
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Rows = dict[str, Counter[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Production at one moment: its schema, its rows, and the columns that they were read by."""

    fingerprint: str
    columns: dict[tuple[str, str], tuple[str, ...]]
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the two fault-free runs left: the deployed schema, and the files that may be there."""

    deployed: str = ""
    files: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the case itself knows: its clients' writes, and the runs that the ledger was told of."""

    seed: int
    writes: Sequence[object]
    api: Callable[[], httpx.AsyncClient]
    runs: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Verdict:
    """How the deploy ended, by the ledger, and what is wrong with that."""

    end: str = ""
    violations: list[str] = field(default_factory=list)


async def look(stage: Stage) -> State:
    async with connect(stage.superuser_url) as conn:
        catalogue = await read_catalogue(conn)
        columns = {place: tuple(catalogue.columns(*place)) for place in catalogue.stores}
        return State(
            fingerprint=catalogue.fingerprint, columns=columns, rows=await _rows(conn, columns)
        )


async def _rows(
    conn: asyncpg.Connection[asyncpg.Record], columns: dict[tuple[str, str], tuple[str, ...]]
) -> Rows:
    read: Rows = {}
    for place, names in columns.items():
        listed = ", ".join(quote_ident(name) for name in names)
        found = await conn.fetch(f"SELECT ROW({listed})::text AS line FROM {quote_ident(*place)}")
        read[".".join(place)] = Counter(row["line"] for row in found)
    return read


# ---------------------------------------------------------------- the whole judgement


async def judge(stage: Stage, *, before: State, seen: Seen, expected: Expected) -> Verdict:
    """Hold the stage against what it was, what was promised to clients, and fault-free runs."""
    verdict = Verdict()
    say = verdict.violations.append
    last = await _check_ledger(stage, verdict)
    deployed = verdict.end == "succeeded"
    async with connect(stage.superuser_url, purpose="oracle") as conn:
        await _check_database(conn, say)
        await _check_contents(conn, before, seen, say)
        fingerprint = (await read_catalogue(conn)).fingerprint
        await _check_outbox(conn, stage, last, say)
        await _check_runs(conn, last, seen, say)
        await _check_filled(conn, say)
    wanted = expected.deployed if deployed else before.fingerprint
    if wanted and fingerprint != wanted:
        which = _named(fingerprint, before, expected)
        say(f"the deploy ended as {verdict.end}, and the schema is {which}")
    await _check_service(stage, deployed, say)
    await _eventually(lambda: _strangers(stage), "process left over: {}", say)
    _check_snapshots(stage, say)
    found = files(stage)
    left = found - expected.files if expected.files else {each for each in found if _is_left(each)}
    verdict.violations += [f"file left over: {name}" for name in sorted(left)]
    return verdict


def _named(fingerprint: str, before: State, expected: Expected) -> str:
    if fingerprint == before.fingerprint:
        return "the one from before"
    return "the deployed one" if fingerprint == expected.deployed else "neither old nor new"


# ---------------------------------------------------------------- its parts


async def _check_ledger(stage: Stage, verdict: Verdict) -> ledger.Deploy | None:
    """The row of the deploy; None where it never began. The base's own deploy is number 1."""
    async with ledger.connection(stage.target) as conn:
        rows = [row for row in await ledger.recent(conn, limit=20) if row.id > 1]
        for row in rows:
            if row.is_open:
                verdict.violations.append(f"deploy {row.id} is left in between: {row.headline}")
            done = await ledger.migrations_of(conn, row.id)
            states = {each.state for each in done}
            allowed = {"applied"} if row.state == "succeeded" else {"rolled_back"}
            if states - allowed:
                verdict.violations.append(
                    f"deploy {row.id} is {row.state}, and its migrations are {sorted(states)}"
                )
    verdict.end = rows[0].state if rows else "not begun"
    return rows[0] if rows else None


async def _check_database(
    conn: asyncpg.Connection[asyncpg.Record], say: Callable[[str], None]
) -> None:
    queries = {
        "session left over: {}": (
            "SELECT application_name || ' ' || state FROM pg_stat_activity WHERE datname ="
            " current_database() AND application_name LIKE 'airlock%' AND pid <> pg_backend_pid()"
        ),
        "advisory lock left over: {}": (
            "SELECT classid || ' ' || objid FROM pg_locks WHERE locktype = 'advisory' AND database"
            " = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        "prepared transaction left over: {}": "SELECT gid FROM pg_prepared_xacts",
        "invalid index: {}": "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid",
        "unvalidated constraint: {}": "SELECT conname FROM pg_constraint WHERE NOT convalidated",
        "database left over: {}": (
            "SELECT datname FROM pg_database WHERE datname <> current_database()"
            " AND starts_with(datname, current_database())"
        ),
    }
    for said, query in queries.items():

        async def found(query: str = query) -> list[str]:
            return [row[0] for row in await conn.fetch(query)]

        await _eventually(found, said, say)


async def _check_contents(
    conn: asyncpg.Connection[asyncpg.Record],
    before: State,
    seen: Seen,
    say: Callable[[str], None],
) -> None:
    from traffic import lost

    seed = seen.seed
    for write in await lost(conn, seen.writes):  # type: ignore[arg-type]
        say(f"acknowledged write lost: {write}")
    # What a client wrote and got no answer for may be there; nobody else writes. A trigger writes
    # the history of a deal.
    buyers = "SELECT id::text FROM deals WHERE acquirer_name LIKE $1"
    own = {row["id"] for row in await conn.fetch(buyers, f"Buyer {seed}-%")}
    own |= {f"Buyer {seed}-", f"Alert {seed}-"}
    after = await _rows(conn, before.columns)
    for name, rows in before.rows.items():
        for line in rows - after[name]:
            say(f"row of {name} lost or changed: {line[:200]}")
        for line in (after[name] - rows).elements():
            if not any(mark in line for mark in own):
                say(f"row of {name} that nobody wrote: {line[:200]}")
    for query in (
        "SELECT target_name FROM deals WHERE acquirer_name LIKE $1 GROUP BY 1 HAVING count(*) > 1",
        "SELECT message FROM alerts WHERE message LIKE $1 GROUP BY 1 HAVING count(*) > 1",
    ):
        kind = "Buyer" if "deals" in query else "Alert"
        for row in await conn.fetch(query, f"{kind} {seed}-%"):
            say(f"written twice: {row[0]}")


async def _check_filled(
    conn: asyncpg.Connection[asyncpg.Record], say: Callable[[str], None]
) -> None:
    """Each row from before is met once by the backfill; of those that came meanwhile some are."""
    if not await conn.fetchval(
        "SELECT EXISTS (SELECT FROM airlock.migration WHERE version = 13 AND state = 'applied')"
    ):
        return
    for row in await conn.fetch(
        "SELECT id, score FROM deals WHERE score > 1 OR score IS NULL"
        " AND acquirer_name NOT LIKE 'Buyer %' ORDER BY id"
    ):
        say(f"deal {row['id']} was met {row['score'] or 0} times by the backfill")


async def _check_outbox(
    conn: asyncpg.Connection[asyncpg.Record],
    stage: Stage,
    last: ledger.Deploy | None,
    say: Callable[[str], None],
) -> None:
    rows = await conn.fetch(
        "SELECT dedup_key, body->>'state' AS state, delivered_at FROM airlock.alert"
        " WHERE deploy > 1 ORDER BY id"
    )
    told = {body.get("key") for body in stage.webhook.bodies}
    for row in rows:
        if row["delivered_at"] is None:
            say(f"alert {row['dedup_key']} was not delivered")
        elif row["dedup_key"] not in told:
            say(f"alert {row['dedup_key']} counts as delivered, and nobody was told")
    # The key says target, deploy, state and fence. A takeover has a fence of its own.
    keys = Counter("-".join(row["dedup_key"].split("-")[:4]) for row in rows)
    for key, times in keys.items():
        if times > 1:
            say(f"the alert {key} is there {times} times")
    outcomes = Counter(tuple(row["dedup_key"].split("-")[1:3]) for row in rows)
    if last is not None and not last.is_open and (str(last.id), last.state) not in outcomes:
        say(f"nobody hears that deploy {last.id} ended as {last.state}")
    for (number, state), times in outcomes.items():
        if state in ledger.FINISHED and times > 1:
            say(f"that deploy {number} {state} is told {times} times, under different keys")


async def _check_runs(
    conn: asyncpg.Connection[asyncpg.Record],
    last: ledger.Deploy | None,
    seen: Seen,
    say: Callable[[str], None],
) -> None:
    """A deploy that was taken over is finished for Prefect as well.

    Who dies after the last word in the ledger leaves a run that nobody takes over.
    """
    if last is None or not await conn.fetchval(
        "SELECT EXISTS (SELECT FROM airlock.event WHERE deploy = $1 AND step = $2)",
        last.id,
        ledger.CUT_OFF,
    ):
        return
    async with seen.api() as http:
        for run in seen.runs:
            answer = (await http.get(f"/flow_runs/{run}")).raise_for_status().json()
            if answer["state_type"] not in _ENDED:
                say(f"the run {answer['name']} is {answer['state_type']} for Prefect")


async def _check_service(stage: Stage, deployed: bool, say: Callable[[str], None]) -> None:
    try:
        health = await stage.health()
    except Exception as error:  # noqa: BLE001 – whatever it is, the service does not answer
        say(f"the service does not answer: {type(error).__name__}")
        return
    wanted = "v2" if deployed else "v1"
    if health.get("release") != wanted:
        say(f"the service is of release {health.get('release')}, expected {wanted}")


# ---------------------------------------------------------------- processes and files


async def _strangers(stage: Stage) -> list[str]:
    """All but one instance of the service."""
    serving = (await stage.health()).get("pid")
    return [
        f"{pid} {command}"
        for pid, command in own.processes(stage.root.parent).items()
        if pid != serving
    ]


def files(stage: Stage) -> set[str]:
    """What is in the state folder, numbers and hashes as a sign, contents of snapshots left out."""
    state = stage.root / ".airlock"
    found = set[str]()
    for path in state.rglob("*"):
        parts = path.relative_to(state).parts
        if len(parts) > 4 or parts[0] == "staging" or "__pycache__" in parts:
            continue
        # Empty clusters, kept for the next logical snapshot. Half ones have another name.
        if any(part.startswith("pg") for part in parts[:-1]) or path.match("templates/pg*"):
            continue
        if parts[-1] == "templates":
            continue
        found.add("/".join(re.sub(r"[0-9a-f]{6,}|\d+", "#", part) for part in parts))
    return found


def _check_snapshots(stage: Stage, say: Callable[[str], None]) -> None:
    """What has its final name is whole."""
    for folder in stage.target.snapshots_dir.glob("[0-9]*Z-*"):
        try:
            if folder.is_dir():
                manifest.read(folder)
        except Refused as error:
            say(f"a snapshot is not whole: {error}")


def _is_left(name: str) -> bool:
    """Where no fault-free run says what may be there."""
    return name.startswith(("prod/clones/", "prod/snapshots/."))


async def _eventually(look: Callable[[], object], said: str, say: Callable[[str], None]) -> None:
    """What is on its way out gets some seconds."""
    clock = asyncio.get_running_loop()
    deadline = clock.time() + SETTLED_S
    while True:
        found = await look()  # type: ignore[misc]
        if not found or clock.time() > deadline:
            break
        await asyncio.sleep(0.1)
    for each in found:
        say(said.format(each))
