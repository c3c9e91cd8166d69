"""A ledger that something else has written: every command says what it found, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from airlock import deploy as steps
from airlock import dora, drift, ledger, metrics, outbox, preview, recovery, report
from airlock.errors import AirlockError
from airlock.request import DeployRequest
from airlock.server import Server
from airlock.settings import Target
from tests.conftest import OWNER, create_database, drop_database
from tests.people import connect
from tests.postgres.conftest import Project, configured

FIRST = ("CREATE TABLE a (id int);", "DROP TABLE a;")
FREE = """
ALTER TABLE airlock.deploy DROP CONSTRAINT deploy_state_check, DROP CONSTRAINT deploy_check;
ALTER TABLE airlock.migration DROP CONSTRAINT migration_state_check;
"""
# As if a runner had ended in the middle of it.
OPEN = "UPDATE airlock.deploy SET state = 'applied', finished_at = NULL;"
FORGET = """
ALTER TABLE airlock.deploy DROP CONSTRAINT deploy_schema_before_fkey,
    DROP CONSTRAINT deploy_schema_expected_fkey, DROP CONSTRAINT deploy_schema_after_fkey;
"""


def null(table: str, column: str) -> str:
    return (
        f"ALTER TABLE airlock.{table} ALTER COLUMN {column} DROP NOT NULL;"
        f"UPDATE airlock.{table} SET {column} = NULL"
    )


def column(name: str, value: str) -> str:
    return f"UPDATE airlock.deploy SET {name} = '{value}'"


EDITS = {
    "an unknown state": f"{FREE} UPDATE airlock.deploy SET state = 'paused'",
    "an unknown state of a migration": f"{FREE} UPDATE airlock.migration SET state = 'lost'",
    "an unknown kind": (
        "ALTER TABLE airlock.deploy DROP CONSTRAINT deploy_kind_check;"
        "UPDATE airlock.deploy SET kind = 'wish'"
    ),
    "a plan that is a list": column("plan", "[]"),
    "a plan without migrations": "UPDATE airlock.deploy SET plan = plan - 'migrations'",
    "no plan": "UPDATE airlock.deploy SET plan = NULL",
    "a request of numbers": column("request", '{"target": 7}'),
    "a request that is a list": column("request", "[1]"),
    "a snapshot without fields": column("snapshot", "{}"),
    "a rehearsal that is a text": column("rehearsal", '"done"'),
    "no rehearsal": "UPDATE airlock.deploy SET rehearsal = NULL",
    "a release without fields": column("release", "{}"),
    "a restart that is a number": column("restart", "1"),
    "an instance without fields": column("previous", "{}"),
    "an approval without fields": column("approval", "{}"),
    "an aftermath that is a list": column("aftermath", "[1]"),
    "health without fields": column("health", "{}"),
    "no runner": null("deploy", "holder"),
    "no fence": null("deploy", "fence"),
    "no time": null("deploy", "created_at"),
    "no heartbeat": null("deploy", "heartbeat_at"),
    "a migration without a name": null("migration", "name"),
    "a migration without its SQL": null("migration", "reverse_sql"),
    "SQL that is none": "UPDATE airlock.migration SET forward_sql = 'x y', reverse_sql = 'x y'",
    "an event without a phase": null("event", "phase"),
    "an event without a time": null("event", "at"),
    "an alert without fields": "UPDATE airlock.alert SET body = '{}', delivered_at = NULL",
    "an alert that is a list": "UPDATE airlock.alert SET body = '[]', delivered_at = NULL",
    "no catalogue": f"{FORGET} DELETE FROM airlock.catalogue",
    "a catalogue that is cut off": "UPDATE airlock.catalogue SET objects = left(objects, 40)",
    "a catalogue that is a list": "UPDATE airlock.catalogue SET objects = '[]'",
    "another catalogue": "UPDATE airlock.catalogue SET objects = '{}'",
    "no version": "DELETE FROM airlock.ledger",
    "numbers of deploys from the start": "ALTER SEQUENCE airlock.deploy_id_seq RESTART",
    "numbers of events from the start": "ALTER SEQUENCE airlock.event_sequence_seq RESTART",
    "numbers of alerts from the start": "ALTER SEQUENCE airlock.alert_id_seq RESTART",
    "fences from the start": "ALTER SEQUENCE airlock.fence RESTART",
    "no fences": "DROP SEQUENCE airlock.fence",
    "no column of a deploy": "ALTER TABLE airlock.deploy DROP COLUMN holder",
    **{
        f"no table {name}": f"DROP TABLE airlock.{name} CASCADE"
        for name in (
            *("ledger", "catalogue", "deploy", "migration", "event", "alert", "kept"),
            *("delivery", "backfill", "client"),
        )
    },
}


async def _status(target: Target) -> None:
    from airlock.__main__ import _status

    said = await _status(target)
    if "error" in said:
        raise AirlockError(str(said["error"]))


async def _report(target: Target) -> None:
    report.markdown(await steps.read_report(target, 1))


async def _history(target: Target) -> None:
    from airlock.__main__ import _deploy_as_json

    for row in (await dora.read(target, limit=5)).recent:
        assert row.headline
        _deploy_as_json(row)


async def _metrics(target: Target) -> None:
    metrics.render([await metrics.read(target)])


async def _drift(target: Target) -> None:
    found = await drift.look(target)
    await drift.tell(target, found)
    if found.failure:
        raise AirlockError(found.failure)


# Those that only look come first: the others write.
COMMANDS: dict[str, Callable[[Target], Awaitable[object]]] = {
    "plan": preview.preview,
    "status": _status,
    "report": _report,
    "history": _history,
    "metrics": _metrics,
    "drift": _drift,
    "deliver": lambda target: outbox.deliver(target.name),
    "recover": recovery.take_up,
    "rollback": steps.reopen,
    "deploy": lambda _: steps.open_deploy(DeployRequest(target="prod")),
}


@pytest.fixture(scope="module")
async def base(pg: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A database with a deploy, and all that the ledger can hold of one: the template of others."""
    database = await create_database(pg)
    with pytest.MonkeyPatch.context() as patch:
        first = configured(database, tmp_path_factory.mktemp("damaged"), patch)
        first.write(1, *FIRST)
        await first.deploy(reason="first")
    yield database.name
    await drop_database(database)


@pytest.fixture
async def deployed(project: Project, base: str) -> Project:
    """A project whose first migration is deployed, and whose second is not."""
    name = project.database.name
    async with connect(project.database.server.url()) as superuser:
        await superuser.execute(f"DROP DATABASE {name}")
        await superuser.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {base}")
    project.write(1, *FIRST)
    project.write(2, "CREATE TABLE b (id int);", "DROP TABLE b;")
    return project


@pytest.mark.parametrize("before", ["", OPEN], ids=["finished", "open"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_no_command_ends_in_a_traceback(deployed: Project, edit: str, before: str, dead: str):
    await deployed.execute(f"UPDATE airlock.deploy SET holder = '{dead}'; {before}")
    await deployed.execute(edit)
    for name, command in COMMANDS.items():
        try:
            await command(deployed.target)
        except AirlockError as error:
            said = str(error)
            assert "airlock " in said or "A damaged ledger" in said, f"{name}: {said}"


async def test_a_fence_that_is_drawn_again_shuts_the_earlier_runner_out(project: Project):
    lease = await project.begin()
    await project.execute("ALTER SEQUENCE airlock.fence RESTART")
    taken = await project.take_over(lease)
    assert taken.fence > lease.fence


async def test_a_catalogue_that_was_edited_is_not_believed(deployed: Project):
    await deployed.execute("UPDATE airlock.catalogue SET objects = '{}'")
    async with ledger.connection(deployed.target) as conn:
        seen = await ledger.last_seen(conn)
        assert seen is not None
        with pytest.raises(AirlockError, match="is not what was stored"):
            await ledger.load_catalogue(conn, seen.fingerprint)
