"""Undoing a deploy: everything goes back, and no row is lost."""

from __future__ import annotations

import json

import pytest

from airlock import deploy as steps
from airlock import ledger, rollback
from airlock.errors import Broken, Refused, Stranded
from airlock.rehearsal import Dropped, RehearsedMigration
from tests.people import connect
from tests.postgres.conftest import Project, runner


def rehearsed(label: str, *drops: Dropped) -> RehearsedMigration:
    return RehearsedMigration(
        label=label,
        seconds=0,
        reverse_seconds=0,
        statements=(),
        schema_before="",
        schema_after="",
        drops=drops,
    )


def dropped(table: str, *columns: str) -> Dropped:
    return Dropped(schema="public", table=table, columns=columns)


async def applied(project: Project):
    """All migrations applied, and the catalogue from before."""
    before = await project.catalogue()
    lease = await project.begin()
    async with connect(project.url) as conn:
        for position, step in enumerate(project.migrations(), 1):
            await runner(project, conn, lease).forward(step, position=position)
    return lease, before


async def kept(project: Project) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    sql = "SELECT relation, row_data FROM airlock.kept ORDER BY id"
    for relation, row in await project.fetch(sql):
        found.setdefault(str(relation), []).append(json.loads(str(row)))
    return found


async def undo(project: Project, lease, before, *drops: RehearsedMigration):
    return await rollback.reverse_migrations(project.target, lease, drops, before)


# ---------------------------------------------------------------- what is kept


async def test_rows_of_a_dropped_table_and_written_values_of_a_dropped_column_are_kept(
    project: Project,
):
    await project.execute("CREATE TABLE old (id int); INSERT INTO old VALUES (1), (2), (3)")
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    project.write(
        2, "ALTER TABLE old ADD COLUMN b text DEFAULT 'none';", "ALTER TABLE old DROP COLUMN b;"
    )
    lease, before = await applied(project)
    # What the service writes before the verdict comes.
    await project.execute("INSERT INTO new VALUES (7); UPDATE old SET b = 'some' WHERE id = 2")
    await project.execute("INSERT INTO old VALUES (4, NULL), (5, DEFAULT)")
    found = await undo(
        project,
        lease,
        before,
        rehearsed("001_step", dropped("new")),
        rehearsed("002_step", dropped("old", "b")),
    )
    assert found.migrations == ("002_step", "001_step")
    assert found.kept_rows == 4
    assert await kept(project) == {
        '"public"."old"': [{"id": 2, "b": "some"}, {"id": 4, "b": None}, {"id": 5, "b": "none"}],
        '"public"."new"': [{"id": 7}],
    }
    assert await project.fetch("SELECT id FROM old ORDER BY id") == [(n,) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("column", "written"),
    [
        ("json DEFAULT '{}'", "'[1]'"),
        ("json", "'{}'"),
        ("jsonb DEFAULT '{}'", "'[1]'"),
        ("polygon", "'((0,0),(1,1))'"),
        ("point DEFAULT '(0,0)'", "'(1,1)'"),
        ("numeric(10,2) DEFAULT 1", "2"),
        ("char(5) DEFAULT 'a'", "'b'"),
        ("varchar(5) COLLATE \"C\" DEFAULT 'a'", "'b'"),
        ("text[] DEFAULT '{}'", "'{a}'"),
        ("timestamptz DEFAULT '2026-01-01'", "now()"),
        ("boolean DEFAULT false", "true"),
        ("mood DEFAULT 'ok'", "'bad'"),
        ("uuid", "gen_random_uuid()"),
        ('"odd type" DEFAULT 1', "2"),
    ],
)
async def test_a_value_of_any_type_written_since_is_kept_and_the_rest_is_not(
    project: Project, column, written
):
    await project.execute(
        "CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE DOMAIN \"odd type\" AS int;"
        "CREATE TABLE old (id int); INSERT INTO old VALUES (1), (2)"
    )
    forward = f'ALTER TABLE old ADD COLUMN "a b" {column}; UPDATE old SET "a b" = {written};'
    project.write(1, forward, 'ALTER TABLE old DROP COLUMN "a b";')
    lease, _ = await applied(project)
    await project.execute(f'UPDATE old SET "a b" = {written} WHERE id = 2')
    keep = rollback.Keep(lease=lease, version=1, drops=(dropped("old", "a b"),))
    async with connect(project.url) as conn, conn.transaction():
        await keep(conn)
    rows = (await kept(project))['"public"."old"']
    assert [row["id"] for row in rows if isinstance(row, dict)] == [2]


async def test_columns_that_hold_no_data_of_their_own_keep_nothing(project: Project):
    await project.execute(
        "CREATE TABLE old (id int, twice int GENERATED ALWAYS AS (id * 2) STORED);"
        "INSERT INTO old VALUES (1)"
    )
    lease = await project.begin()
    keep = rollback.Keep(
        lease=lease,
        version=1,
        drops=(dropped("old", "twice"), dropped("gone"), dropped("old", "x")),
    )
    async with connect(project.url) as conn, conn.transaction():
        await keep(conn)
    assert await kept(project) == {}


async def test_what_an_older_transaction_writes_after_the_migration_is_kept(project: Project):
    await project.execute("CREATE TABLE old (id int); INSERT INTO old VALUES (1), (2)")
    project.write(1, "ALTER TABLE old ADD COLUMN b int;", "ALTER TABLE old DROP COLUMN b;")
    async with connect(project.url) as writer, writer.transaction():
        await writer.fetchval("SELECT pg_current_xact_id()")
        lease, before = await applied(project)
        await writer.execute("UPDATE old SET b = 7 WHERE id = 1")
    await undo(project, lease, before, rehearsed("001_step", dropped("old", "b")))
    assert await kept(project) == {'"public"."old"': [{"id": 1, "b": 7}]}


async def test_rows_that_a_policy_hides_stop_the_rollback_instead_of_being_lost(project: Project):
    project.write(
        1,
        "CREATE TABLE new (id int);\nALTER TABLE new ENABLE ROW LEVEL SECURITY;\n"
        "ALTER TABLE new FORCE ROW LEVEL SECURITY;\nCREATE POLICY p ON new USING (id > 1);",
        "DROP TABLE new;",
    )
    lease, before = await applied(project)
    with pytest.raises((Broken, Refused), match="row-level security"):
        await undo(project, lease, before, rehearsed("001_step", dropped("new")))


async def test_rows_written_between_two_transactions_of_the_reverse_are_kept(project: Project):
    project.write(
        1,
        "CREATE TABLE new (id int);\nCREATE INDEX CONCURRENTLY i ON new (id);",
        "COMMENT ON TABLE new IS 'going';\nDROP INDEX CONCURRENTLY i;\nDROP TABLE new;",
    )
    lease, _ = await applied(project)
    await project.execute("INSERT INTO new VALUES (1)")
    (row,) = await project.rows(lease)
    keep = rollback.Keep(lease=lease, version=1, drops=(dropped("new"),))

    async def writing(conn, statement):
        await conn.execute(statement.text)
        if "INDEX" in statement.text:
            await project.execute("INSERT INTO new VALUES (2)")

    async with connect(project.url) as conn:
        await runner(project, conn, lease, execute=writing).reverse(row, before=keep)
    assert await kept(project) == {'"public"."new"': [{"id": 1}, {"id": 2}]}


async def test_nothing_is_written_between_the_copy_and_the_drop(project: Project):
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    lease, _ = await applied(project)
    (row,) = await project.rows(lease)
    keep = rollback.Keep(lease=lease, version=1, drops=(dropped("new"),))
    refused: list[str] = []

    async def writing(conn, statement):
        try:
            await project.execute("SET lock_timeout = 50; INSERT INTO new VALUES (1)")
        except Exception as error:  # noqa: BLE001
            refused.append(type(error).__name__)
        await conn.execute(statement.text)

    async with connect(project.url) as conn:
        await runner(project, conn, lease, execute=writing).reverse(row, before=keep)
    assert refused == ["LockNotAvailableError"]


# ---------------------------------------------------------------- what goes wrong


async def test_a_schema_that_does_not_come_back_is_stranded_with_the_difference(project: Project):
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    lease, before = await applied(project)
    await project.execute("CREATE TABLE stray (id int)")
    with pytest.raises(Stranded) as caught:
        await undo(project, lease, before)
    assert "+ table public.stray" in str(caught.value)
    assert "airlock rollback prod" in str(caught.value)


async def test_a_second_call_finishes_what_the_first_left_half_done(project: Project):
    project.write(1, "CREATE TABLE one (id int);", "DROP TABLE one;")
    project.write(2, "CREATE TABLE two (id int);", "DROP TABLE two;")
    lease, before = await applied(project)
    await project.execute("INSERT INTO one VALUES (1); INSERT INTO two VALUES (2)")
    await project.execute("CREATE VIEW v AS SELECT * FROM one")
    drops = (rehearsed("001_step", dropped("one")), rehearsed("002_step", dropped("two")))
    with pytest.raises(Broken, match=r"DROP TABLE one failed: .*view v depends"):
        await undo(project, lease, before, *drops)
    assert [row.state for row in await project.rows(lease)] == ["applied", "rolled_back"]
    await project.execute("DROP VIEW v")
    found = await undo(project, lease, before, *drops)
    assert found.migrations == ("001_step",)
    assert found.kept_rows == 2
    assert (await undo(project, lease, before, *drops)).migrations == ()


# ---------------------------------------------------------------- whole, by the steps


async def test_a_deploy_is_undone_and_can_be_deployed_again(project: Project):
    await project.execute("CREATE TABLE old (id int); INSERT INTO old VALUES (1)")
    # Zeros beyond three must not hide from the rollback what it drops.
    (project.root / "migrations" / "0001_new.sql").write_text(
        "CREATE TABLE new (id int);\nCREATE MATERIALIZED VIEW m AS SELECT * FROM old;\n"
        "-- ROLLBACK NOTES\n-- DROP MATERIALIZED VIEW m;\n-- DROP TABLE new;\n"
    )
    before = await project.catalogue()
    await project.deploy()
    await project.execute("INSERT INTO new VALUES (7)")
    lease, last = await steps.reopen(project.target)
    found = await steps.roll_back(lease, "by hand")
    assert last.state == "succeeded"
    assert found.undone.migrations == ("001_new",)
    assert await kept(project) == {'"public"."new"': [{"id": 7}]}
    assert (await project.catalogue()).fingerprint == before.fingerprint
    async with connect(project.url) as conn:
        assert (await ledger.recent(conn))[0].state == "rolled_back"
    with pytest.raises(Refused, match="no deploy of prod to undo"):
        await steps.reopen(project.target)
    await project.deploy()
    assert await project.fetch("SELECT count(*) FROM new") == [(0,)]


async def test_an_attempt_that_touched_nothing_does_not_hide_the_deploy_before_it(
    project: Project,
):
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    done = await project.deploy()
    project.write(2, "CREATE TABLE two (id int);", "DROP TABLE two;")
    await steps.fail(await project.begin(), "refused at the rehearsal")
    lease, _ = await steps.reopen(project.target)
    assert lease.deploy == done.deploy
    assert (await steps.roll_back(lease, "by hand")).undone.migrations == ("001_step",)


async def test_who_asks_twice_undoes_one_deploy(project: Project):
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    done = await project.deploy()
    project.write(2, "CREATE TABLE two (id int);", "DROP TABLE two;")
    waiting = await project.begin()
    lease, _ = await steps.reopen(project.target)
    assert lease.deploy == waiting.deploy
    await steps.fail(lease, "closed by hand")
    with pytest.raises(Refused, match="airlock rollback prod NUMBER"):
        await steps.reopen(project.target)
    with pytest.raises(Refused, match=rf"is {done.deploy}, succeeded"):
        await steps.reopen(project.target, waiting.deploy)
    lease, _ = await steps.reopen(project.target, done.deploy)
    assert lease.deploy == done.deploy


async def test_nobody_undoes_a_schema_that_was_changed_by_hand(project: Project):
    project.write(1, "CREATE TABLE new (id int);", "DROP TABLE new;")
    await project.deploy()
    await project.execute("ALTER TABLE new ADD COLUMN by_hand int")
    with pytest.raises(Refused, match=r"\+ column public\.new\.by_hand"):
        await steps.reopen(project.target)
