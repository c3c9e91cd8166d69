"""What schedules start: staging beside production, a killed deploy, and the three flows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx

from airlock import server
from airlock.postgres import quote_ident
from tests.people import connect

PATIENCE_S = 180
SECONDS_AHEAD = 8
EMAIL = "ada@lovelace.example"
STAGING = """
[targets.staging]
database_url_env = "STAGING_DATABASE_URL"
[targets.staging.refresh]
source = "prod"
admin_url_env = "DEV_DATABASE_URL"
key_env = "MASK_KEY"
[targets.staging.mask]
people = { id = "keep", email = "email" }
"""
# Deployment to the name of the state in which its scheduled run ends. In turns: what recover takes
# over holds production's lock, and a refresh would be refused.
TURNS = (
    {"recover/all": "Recovered"},
    {"refresh-staging/nightly": "Refreshed", "drift/nightly": "NoDrift"},
)
ENDED_RUNS = (
    "SELECT d.name, f.name, r.state_name FROM flow_run r "
    "JOIN deployment d ON d.id = r.deployment_id JOIN flow f ON f.id = d.flow_id "
    "WHERE r.auto_scheduled AND r.state_type IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')"
)

# Before its deploy counts as cut off, recover finds nothing to do.
EARLY = {"NothingToRecover", "Cancelled"}

States = Callable[[], Awaitable[set[tuple[str, str]]]]


@asynccontextmanager
async def staging(pg: server.Server, role: str, production: str) -> AsyncIterator[str]:
    """The name of an empty database for staging; production has somebody to be masked.

    production: a superuser's address.
    """
    name = f"scheduled_{role}"
    async with connect(production) as conn:
        await conn.execute(
            f"CREATE TABLE people (id integer PRIMARY KEY, email text NOT NULL);"
            f"ALTER TABLE people OWNER TO {role};"
            f"INSERT INTO people VALUES (1, '{EMAIL}')"
        )
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"CREATE DATABASE {quote_ident(name)} OWNER {role}")
    try:
        yield name
    finally:
        async with connect(pg.url()) as superuser:
            made = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
            for row in await superuser.fetch(made, name):
                await superuser.execute(f"DROP DATABASE {quote_ident(row['datname'])} WITH (FORCE)")


async def switch_off_automations(http: httpx.AsyncClient) -> None:
    """No event may start what a schedule has to."""
    found = (await http.post("/automations/filter", json={})).raise_for_status().json()
    for each in found:
        answer = await http.patch(f"/automations/{each['id']}", json={"enabled": False})
        answer.raise_for_status()


async def set_seconds_ahead(http: httpx.AsyncClient, title: str) -> None:
    """As a person does it in the UI: an interval from a moment ahead on, switched on.

    The scheduler looks at what was changed every few seconds. On a busy machine it may come when
    the moment has passed; the next one would be an hour later.
    """
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    (schedule,) = found["schedules"]
    where = f"/deployments/{found['id']}"
    while True:
        at = datetime.now(UTC) + timedelta(seconds=SECONDS_AHEAD)
        every = {"interval": 3600, "anchor_date": at.isoformat(), "timezone": "UTC"}
        changed = {"active": True, "schedule": every}
        answer = await http.patch(f"{where}/schedules/{schedule['id']}", json=changed)
        answer.raise_for_status()
        (await http.patch(where, json={"tags": found["tags"]})).raise_for_status()
        while datetime.now(UTC) < at:
            if await _is_scheduled(http, found["id"], at):
                return
            await asyncio.sleep(0.2)


async def _is_scheduled(http: httpx.AsyncClient, deployment: str, at: datetime) -> bool:
    until = at + timedelta(seconds=1)
    wanted = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"expected_start_time": {"before_": until.isoformat()}},
    }
    answer = await http.post("/flow_runs/count", json=wanted)
    return answer.raise_for_status().json() > 0


async def all_end_well(turn: Mapping[str, str], ended: States) -> None:
    """Wait until the server's database has them. ended: the runs that a schedule started."""
    wanted = set(turn.items())
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= (there := await ended()):
            bad = {each for each in there if each[0] in turn and each not in wanted}
            assert {each for each in bad if each[1] not in EARLY} == set()
            await asyncio.sleep(0.2)


async def is_masked(database: str) -> None:
    """Staging has production's rows, and nobody's address."""
    async with connect(database) as conn:
        (masked,) = await conn.fetch("SELECT id, email FROM people")
    assert masked["id"] == 1
    assert masked["email"] != EMAIL
    assert re.fullmatch(r"\S+@\S+", masked["email"])
