"""What a migration tries with Airlock's own tables, in the open and behind its text."""

from __future__ import annotations

import pytest

from airlock import deploy as steps
from airlock import ledger
from airlock.errors import Broken, Refused
from airlock.request import DeployRequest
from tests.people import connect
from tests.postgres.conftest import Project, project, runner

__all__ = ["project"]

NAMED = {
    "rows": "DELETE FROM airlock.event",
    "a path": "SET search_path = airlock; UPDATE deploy SET state = 'succeeded'",
    "a block": "DO $$BEGIN UPDATE airlock.deploy SET state = 'succeeded'; END$$",
    "a function": "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'TRUNCATE airlock.kept'",
    "the schema": "DROP SCHEMA airlock CASCADE",
    "what a role owns": "DROP OWNED BY owner",
    "another schema": "ALTER TABLE airlock.kept SET SCHEMA public",
}
# The name is made when it runs, so that nobody can read it.
_RUN = "DO $$BEGIN EXECUTE pg_catalog.replace({sql}, '#', 'air' || 'lock'); END$$;"
HIDDEN = {
    "rows": "UPDATE #.deploy SET reason = 'mine'",
    "a row more": "INSERT INTO #.catalogue (fingerprint, objects) VALUES ('x', '{}')",
    "all rows": "TRUNCATE #.kept",
    "a number": "SELECT setval('#.fence', 99)",
    "a column": "ALTER TABLE #.deploy ADD COLUMN mine int",
    "a trigger": "CREATE TRIGGER mine AFTER INSERT ON #.event EXECUTE FUNCTION deaf()",
    "a rule": "CREATE RULE mine AS ON DELETE TO #.kept DO INSTEAD NOTHING",
    "a reference": "CREATE TABLE mine (deploy bigint REFERENCES #.deploy)",
    "a table": "CREATE TABLE #.mine (a int)",
    "a table less": "DROP TABLE #.client_row",
    "a function": "CREATE FUNCTION #.mine() RETURNS int LANGUAGE sql AS ''SELECT 1''",
    "a type": "CREATE TYPE #.mine AS ENUM (''a'')",
    "a right": "GRANT INSERT ON #.deploy TO PUBLIC",
    "a right in the schema": "GRANT CREATE ON SCHEMA # TO PUBLIC",
    "an option": "ALTER TABLE #.kept SET (fillfactor = 50)",
    "row security": "ALTER TABLE #.event ENABLE ROW LEVEL SECURITY",
    "the name": "ALTER SCHEMA # RENAME TO mine",
    "everything": "DROP SCHEMA # CASCADE",
}
DEAF = (
    "CREATE FUNCTION deaf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TABLE deals (id int)"
)


def hidden(sql: str) -> str:
    quoted = sql if "''" in sql else sql.replace("'", "''")
    return _RUN.format(sql=f"'{quoted}'")


async def ledger_of(project: Project) -> dict[str, str]:
    async with connect(project.url, pinned=True) as conn:
        return await ledger.state(conn, 0)


@pytest.mark.attack(
    by="a migration", tries="to write what was done, or schema airlock", sample=True
)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("sql", NAMED.values(), ids=NAMED)
async def test_what_a_file_says_of_the_ledger_is_refused_with_its_line(
    project: Project, direction: str, sql: str
):
    one, other = (sql, "SELECT 1") if direction == "forward" else ("SELECT 1", sql)
    path = project.write(1, f"SELECT 0;\n{one};", f"{other};")
    text = path.read_text(encoding="utf-8").splitlines()
    # The first statement of it that is refused.
    line = next(n for n, each in enumerate(text, 1) if sql.partition(";")[0] in each)
    with pytest.raises(Refused) as caught:
        await steps.open_deploy(DeployRequest(target="prod"))
    said = str(caught.value)
    assert "001_step.sql" in said
    assert f"line {line}: " in said
    assert "only Airlock writes it. Take the statement out" in said


@pytest.mark.attack(by="a migration", tries="the same in code whose text does not say so")
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("sql", HIDDEN.values(), ids=HIDDEN)
async def test_what_code_does_to_the_ledger_is_refused_on_the_clone(
    project: Project, direction: str, sql: str
):
    await project.execute(DEAF)
    changing, rest = hidden(sql), "SELECT 1;"
    project.write(1, *((changing, rest) if direction == "forward" else (rest, changing)))
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    with pytest.raises(Refused) as caught:
        await steps.rehearse(lease)
    said = str(caught.value)
    assert "001_step" in said
    assert "Take out what changes it" in said
    assert "production is untouched" in said


@pytest.mark.attack(
    by="a migration", tries="the ledger in production, where its code takes another way"
)
async def test_what_only_production_would_do_to_the_ledger_is_undone_there(project: Project):
    await project.execute(
        f"{DEAF}; CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN EXECUTE 'DELETE FROM air' || 'lock.kept'; RETURN NEW; END$$;"
        "CREATE TRIGGER hear BEFORE INSERT ON deals FOR EACH ROW EXECUTE FUNCTION hear()"
    )
    project.write(1, "SELECT 1;\nINSERT INTO deals VALUES (1);", "DELETE FROM deals;")
    lease = await project.begin()
    before = await ledger_of(project)
    async with connect(project.url) as conn:
        with pytest.raises(Broken, match=r"up to INSERT INTO deals .*it changes airlock\.kept"):
            await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await project.fetch("SELECT id FROM deals") == []
    assert await ledger_of(project) == before


@pytest.mark.attack(by="a backfill", tries="the ledger by a trigger of the table that it fills")
async def test_a_batch_that_changes_the_ledger_is_undone(project: Project):
    await project.execute(
        "CREATE TABLE deals (id int PRIMARY KEY, n int); INSERT INTO deals VALUES (1);"
        "CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN EXECUTE 'UPDATE air' || 'lock.deploy SET fence = fence'; RETURN NEW; END$$;"
        "CREATE TRIGGER hear BEFORE UPDATE ON deals FOR EACH ROW EXECUTE FUNCTION hear()"
    )
    project.write(
        1,
        "-- Airlock: backfill table=deals key=id\nUPDATE deals SET n = 1;",
        "UPDATE deals SET n = NULL;",
    )
    lease = await project.begin()
    async with connect(project.url) as conn:
        with pytest.raises(Broken, match=r"it changes airlock\.deploy"):
            await runner(project, conn, lease).forward(project.migrations()[0], position=1)
    assert await project.fetch("SELECT n FROM deals") == [(None,)]


@pytest.mark.attack(
    by="nobody", tries="nothing: a migration reads what was kept, and grants SELECT"
)
async def test_a_migration_may_read_what_was_kept_and_let_others_read_it(project: Project):
    await project.execute(DEAF)
    project.write(
        1,
        "INSERT INTO deals SELECT 1 FROM airlock.kept;\n"
        "GRANT USAGE ON SCHEMA airlock TO pg_monitor;\n"
        "GRANT SELECT ON airlock.kept TO pg_monitor;\n"
        "VACUUM FULL;\nANALYZE;",
        "REVOKE SELECT ON airlock.kept FROM pg_monitor;\n"
        "REVOKE USAGE ON SCHEMA airlock FROM pg_monitor;",
    )
    await project.deploy()
