"""What a role that may create something, and no more, plants for our sessions to find."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import asyncpg
import pytest

from airlock import deploy as steps
from airlock import drift, ledger, outbox, recovery, server
from airlock.postgres import quote_ident
from airlock.request import DeployRequest
from tests import our_sql
from tests.conftest import OWNER, Database
from tests.people import connect
from tests.postgres.conftest import Project, dead, project
from tests.postgres.test_refresh import standing

__all__ = ["dead", "project"]

CHECKOUT = Path(__file__).resolve().parents[2]
INTRUDER = "planting_intruder"
TRAPPED = "planted object called by"

# Where the owner's sessions look: as PostgreSQL ships it; and with pg_catalog behind all others,
# where a planted name wins even if nothing fits better than the original.
PATHS = {"as shipped": '"$user", public', "pg_catalog last": f"{OWNER}, public, pg_catalog"}

_FUNCTIONS = """
SELECT DISTINCT p.proname AS name, pg_catalog.array_to_string(ARRAY(
        SELECT CASE WHEN a.type = '"any"'::regtype THEN 'anyelement'
            ELSE pg_catalog.format_type(a.type, NULL) END
        FROM pg_catalog.unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (type, place)
        ORDER BY a.place), ', ') AS arguments
FROM pg_catalog.pg_proc AS p
WHERE p.proname = ANY ($1) AND p.pronamespace = 'pg_catalog'::regnamespace AND NOT EXISTS (
    SELECT FROM pg_catalog.unnest(p.proargtypes::oid[]) AS a (type)
    JOIN pg_catalog.pg_type AS t ON t.oid = a.type
    WHERE t.typtype = 'p' AND t.typname !~ '^any' AND t.typname <> 'record')
"""
_OPERATORS = """
SELECT DISTINCT o.oprname AS name, pg_catalog.format_type(o.oprleft, NULL) AS "left",
    pg_catalog.format_type(o.oprright, NULL) AS "right",
    pg_catalog.format_type(o.oprresult, NULL) AS result
FROM pg_catalog.pg_operator AS o
JOIN pg_catalog.pg_type AS l ON l.oid = o.oprleft
JOIN pg_catalog.pg_type AS r ON r.oid = o.oprright
WHERE o.oprname = ANY ($1) AND o.oprnamespace = 'pg_catalog'::regnamespace
    AND l.typtype <> 'p' AND r.typtype <> 'p'
"""
# What an unknown literal prefers, for each function of one or two arguments.
_PREFERRED = ("text", "text, text", "text, text, boolean", "VARIADIC text[]")
# Types whose names a session that looks past pg_catalog would find first.
_TYPES = ("text", "jsonb", "oid", "regclass", "timestamptz", "bytea")
_TRAP = (
    f"LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '{TRAPPED} %: {{what}}',"
    " pg_catalog.concat(session_user, ' ', current_user); END$$"
)


def _function(schema: str, name: str, arguments: str, result: str = "text") -> str:
    made = f"{schema}.{quote_ident(name)}({arguments})"
    trap = _TRAP.format(what=made.replace("'", "").replace("%", "%%"))
    return f"CREATE FUNCTION {made} RETURNS {result} {trap};"


def _traps(
    schema: str, functions: Iterable[asyncpg.Record], operators: Iterable[asyncpg.Record]
) -> list[str]:
    found = {(row["name"], row["arguments"]) for row in functions}
    found |= {(name, preferred) for name in our_sql.functions() for preferred in _PREFERRED}
    made = [_function(schema, name, arguments) for name, arguments in sorted(found)]
    for number, row in enumerate(operators):
        trap, sides = f"trap_{number}", f"{row['left']}, {row['right']}"
        made.append(_function(schema, trap, sides, row["result"]))
        made.append(
            f"CREATE OPERATOR {schema}.{row['name']} (FUNCTION = {schema}.{trap},"
            f" LEFTARG = {row['left']}, RIGHTARG = {row['right']});"
        )
    made.append(_function(schema, "trap", ""))
    made += [
        f"CREATE VIEW {schema}.{quote_ident(name)} AS SELECT {schema}.trap() AS id;"
        for name in our_sql.relations()
    ]
    return made


_TRAPPED_TYPE = "CREATE DOMAIN {schema}.{name} AS pg_catalog.{name} CHECK ({schema}.trap() IS NULL)"


async def plant(database: Database, path: str) -> None:
    """Every name that our SQL looks up, in the schemas where its sessions would look."""
    async with connect(database.superuser_url) as superuser:
        await superuser.execute(
            f"DO $$BEGIN CREATE ROLE {INTRUDER}; EXCEPTION WHEN duplicate_object THEN END$$;"
            f"CREATE SCHEMA IF NOT EXISTS {OWNER} AUTHORIZATION {OWNER};"
            f"GRANT USAGE, CREATE ON SCHEMA public, {OWNER} TO {INTRUDER};"
            f"GRANT USAGE, CREATE ON SCHEMA public, {OWNER} TO {OWNER};"
            f"ALTER DATABASE {database.name} SET search_path = {path};"
        )
        functions = await superuser.fetch(_FUNCTIONS, sorted(our_sql.functions()))
        operators = await superuser.fetch(_OPERATORS, sorted(our_sql.operators()))
        await superuser.execute(f"SET ROLE {INTRUDER}; SET search_path = pg_catalog")
        # With CREATE on a schema comes no right on what others have there.
        for schema in ("public", OWNER):
            await superuser.execute("".join(_traps(schema, functions, operators)))
            for name in _TYPES if "pg_catalog" in path else ():
                await superuser.execute(_TRAPPED_TYPE.format(schema=schema, name=name))


async def airlock(*arguments: str) -> str:
    """What ``python -m airlock`` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "airlock", *arguments),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


def sprung(on: server.Server, since: int = 0) -> list[str]:
    """The lines of the server's log in which a trap was called."""
    log = server.log_file(on.data_dir).read_bytes()[since:].decode(errors="replace")
    return [line for line in log.splitlines() if TRAPPED in line]


@pytest.fixture
def log_size(pg: server.Server) -> int:
    return server.log_file(pg.data_dir).stat().st_size


@pytest.fixture(params=PATHS)
async def planted(
    request: pytest.FixtureRequest, project: Project, log_size: int
) -> AsyncIterator[Project]:
    # The first deploy makes the ledger: nothing of ours is in the way of the planting yet.
    await plant(project.database, PATHS[request.param])
    yield project
    assert sprung(project.database.server, log_size) == []


@pytest.mark.attack(
    by="a role with CREATE on public",
    tries="functions, operators, types and views of every name in Airlock's SQL, for the ledger",
    sample=True,
)
async def test_no_opening_and_taking_over_of_a_deploy_calls_them(planted: Project, dead: str):
    planted.write(1, "CREATE TABLE public.deals (id bigint);", "DROP TABLE public.deals;")
    opened = await steps.open_deploy(DeployRequest(target="prod"))
    assert opened is not None
    await planted.execute(f"UPDATE airlock.deploy SET holder = '{dead}'")
    taken = await recovery.take_up(planted.target)
    assert taken is not None
    assert taken.lease.fence > opened.fence


@pytest.mark.attack(
    by="a role with CREATE on public",
    tries="functions, operators, types and views of every name in Airlock's SQL, for a deploy",
)
async def test_no_session_of_ours_calls_what_another_role_has_planted(planted: Project):
    project = planted
    project.write(
        1,
        "CREATE TABLE public.deals (id bigint PRIMARY KEY, note varchar);\n"
        "INSERT INTO public.deals VALUES (1), (2), (3);",
        "DROP TABLE public.deals;",
    )
    project.write(
        2,
        "CREATE INDEX CONCURRENTLY deals_note ON public.deals (note);\n"
        "ALTER TABLE public.deals ADD COLUMN score integer;",
        "ALTER TABLE public.deals DROP COLUMN score;\nDROP INDEX CONCURRENTLY public.deals_note;",
    )
    project.write(
        3,
        "-- Airlock: backfill table=deals key=id batch=2\nUPDATE public.deals SET score = 7;",
        "UPDATE public.deals SET score = NULL;",
    )
    lease = await project.deploy()
    async with ledger.connection(project.target) as conn:
        assert (await ledger.deploy(conn, lease.deploy)).state == "succeeded"
    assert await project.fetch("TABLE public.deals ORDER BY id") == [
        (n, None, 7) for n in (1, 2, 3)
    ]
    report = await drift.look(project.target)
    assert not report.drifted
    await drift.tell(project.target, report)
    for command in ("plan", "status", "history", "report", "drift", "deliver", "metrics", "lint"):
        assert TRAPPED not in await airlock(command, "prod")
    await outbox.deliver("prod")


@pytest.mark.attack(
    by="a role with CREATE on public",
    tries="functions, operators, types and views of every name in Airlock's SQL, for a rollback",
)
async def test_no_rollback_or_recovery_calls_them_either(planted: Project, dead: str):
    project = planted
    project.write(1, "CREATE TABLE public.deals (id bigint);", "DROP TABLE public.deals;")
    lease = await project.deploy()
    project.write(
        2, "ALTER TABLE public.deals ADD n integer;", "ALTER TABLE public.deals DROP COLUMN n;"
    )
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    await steps.apply_plan(lease)
    await project.execute("INSERT INTO public.deals VALUES (1, 2)")
    await project.execute(f"UPDATE airlock.deploy SET holder = '{dead}' WHERE finished_at IS NULL")
    taken = await recovery.take_up(project.target)
    assert taken is not None
    back = await steps.roll_back(taken.lease, "by hand")
    assert (back.undone.migrations, back.undone.kept_rows) == (("002_step",), 1)


@pytest.mark.attack(
    by="a role with CREATE on public",
    tries="functions, operators and views of every name in Airlock's SQL, for a refresh",
)
async def test_no_refresh_calls_them(
    pg: server.Server, database: Database, tmp_path: Path, monkeypatch, log_size: int
):
    root = tmp_path / "refresh"
    async with standing(pg, "template0", database, root, monkeypatch) as staging:
        await plant(staging.database, PATHS["as shipped"])
        lease = await staging.refreshed()
        assert (await staging.row(lease)).state == "succeeded"
        assert sprung(pg, log_size) == []
