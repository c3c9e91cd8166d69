"""The plan on the restored snapshot: what it promises, and what it refuses."""

from __future__ import annotations

import pytest

from airlock import contents, ledger, rehearsal
from airlock import deploy as steps
from airlock.effects import LockMode
from airlock.errors import LeaseLost, Refused
from airlock.rehearsal import Dropped, Rehearsal
from airlock.request import DeployRequest
from tests.people import connect
from tests.postgres.conftest import Project

DEALS = (
    "CREATE TABLE deals (id int PRIMARY KEY, value int, note text);"
    "INSERT INTO deals SELECT n, n, 'deal ' || n FROM generate_series(1, 50) AS n;"
    "CREATE TABLE other (id int); INSERT INTO other VALUES (1);"
)
SCORE = ("ALTER TABLE deals ADD COLUMN score int;", "ALTER TABLE deals DROP COLUMN score;")


async def rehearse(project: Project, *, limit: int | None = None) -> Rehearsal:
    """Rehearse all pending, and see that production is as it was."""
    if limit is not None:
        path = project.root / "airlock.toml"
        path.write_text(
            path.read_text().replace('"DEV_URL"', f'"DEV_URL"\ncompare_max_bytes = {limit}')
        )
    before, rows = await project.catalogue(), await project.contents()
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    try:
        return await steps.rehearse(lease)
    finally:
        assert (await project.catalogue()).fingerprint == before.fingerprint
        assert await project.contents() == rows
        assert await project.rows(lease) == ()
        async with connect(project.url) as conn:
            row = await ledger.deploy(conn, lease.deploy)
        assert row.state in ledger.UNTOUCHED
        clones = "SELECT datname FROM pg_database WHERE datname LIKE 'airlock\\_prod\\_%'"
        assert await project.fetch(clones) == []


async def test_what_was_only_renamed_is_not_taken_for_new(project: Project):
    await project.execute("CREATE TABLE old (id int, a int); INSERT INTO old VALUES (1, 2)")
    project.write(
        1,
        "ALTER TABLE old RENAME COLUMN a TO b;\nALTER TABLE old RENAME TO new;",
        "ALTER TABLE new RENAME TO old;\nALTER TABLE old RENAME COLUMN b TO a;",
    )
    assert (await rehearse(project)).migrations[0].drops == ()


async def test_a_rollback_that_brings_everything_back_is_exact(project: Project):
    await project.execute(DEALS)
    project.write(1, "CREATE TABLE new (id int REFERENCES deals);", "DROP TABLE new;")
    project.write(2, f"{SCORE[0]}\nCREATE INDEX CONCURRENTLY i ON deals (score);", SCORE[1])
    found = await rehearse(project)
    assert (found.verdict, found.losses, found.not_compared) == ("exact", (), ())
    assert found.rows_compared == 51
    assert "51 rows came back" in found.rollback_sentence
    first, second = found.migrations
    assert first.drops == (Dropped(schema="public", table="new", columns=()),)
    assert second.drops == (Dropped(schema="public", table="deals", columns=("score",)),)
    assert first.schema_before == found.schema_before
    assert first.schema_after == second.schema_before
    assert second.schema_after == found.schema_after
    assert {effect.relation for effect in first.effects} >= {"public.deals"}
    alter = second.statements[0]
    assert [(each.relation, each.lock) for each in alter.effects] == [
        ("public.deals", LockMode.ACCESS_EXCLUSIVE)
    ]
    assert found.checksums == tuple(each.checksum for each in project.migrations())


async def test_a_rollback_that_loses_values_is_lossy_and_names_them(project: Project):
    await project.execute(DEALS)
    project.write(
        1,
        "UPDATE deals SET note = 'x' WHERE id = 1;\nDELETE FROM other;",
        "UPDATE deals SET note = 'y' WHERE id = 1;",
    )
    found = await rehearse(project)
    assert found.verdict == "lossy"
    assert found.losses == ('"public"."deals" (note)', '"public"."other" (id), 1 rows fewer')
    assert "lossy: not restored were" in found.rollback_sentence


async def test_tables_beyond_the_limit_are_not_compared_and_named(project: Project):
    await project.execute(DEALS)
    project.write(1, "UPDATE deals SET note = 'x';", "SELECT 1;")
    found = await rehearse(project, limit=8192)
    assert found.verdict == "schema only"
    assert found.not_compared == ('"public"."deals"',)
    assert found.rows_compared == 1


async def test_a_table_that_grows_beyond_the_limit_is_still_compared(project: Project):
    await project.execute(DEALS)
    project.write(1, "UPDATE deals SET value = value;\n" * 40, "SELECT 1;")
    found = await rehearse(project, limit=60_000)
    assert (found.verdict, found.rows_compared) == ("exact", 51)


REFUSED = {
    "notes that do not bring the schema back": (
        SCORE[0],
        "ALTER TABLE deals DROP COLUMN IF EXISTS scores;",
        r"do not bring the schema back(?s:.*)\+ column public\.deals\.score(?s:.*)is untouched",
    ),
    "notes that fail": (
        SCORE[0],
        "ALTER TABLE deals DROP COLUMN scores;",
        r"ROLLBACK NOTES of 001_step, line 1: .*scores.* Mend the rollback notes",
    ),
    "a migration that fails": (
        "SELECT 1;\nALTER TABLE dealz ADD COLUMN score int;",
        "SELECT 1;",
        r"001_step\.sql, line 7: ALTER TABLE dealz .* does not exist.*on the clone",
    ),
    "a migration that cannot be applied again": (
        "INSERT INTO deals VALUES (1000, 1, 'x');",
        "SELECT 1;",
        r"After its rollback 001_step cannot be applied again: .*duplicate key.*Mend",
    ),
    "a migration that gives another schema the second time": (
        """DO $$ BEGIN IF (SELECT count(*) FROM deals) = 50 THEN CREATE TABLE a (); END IF; END $$;
        INSERT INTO deals VALUES (1000, 1, 'x') ON CONFLICT DO NOTHING;""",
        "DROP TABLE a;",
        r"give another schema:\n- table public\.a",
    ),
    "a migration that needs a superuser": (
        "ALTER SYSTEM SET work_mem = '1MB';",
        "SELECT 1;",
        r"line 6: ALTER SYSTEM .* permission denied",
    ),
    "a constraint that is left unvalidated": (
        "ALTER TABLE deals ADD CONSTRAINT c CHECK (value > 0) NOT VALID;",
        "ALTER TABLE deals DROP CONSTRAINT c;",
        r"After 001 the clone has: .*not validated",
    ),
}


@pytest.mark.parametrize(("forward", "reverse", "said"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_does_not_stand_the_rehearsal_is_refused_and_production_untouched(
    project: Project, forward, reverse, said
):
    await project.execute(DEALS)
    project.write(1, forward, reverse)
    with pytest.raises(Refused, match=said):
        await rehearse(project)


async def test_a_schema_that_changed_after_the_plan_is_refused(project: Project):
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await project.execute("CREATE TABLE stray (id int)")
    await steps.take_snapshot(lease)
    with pytest.raises(Refused, match="does not have production's schema"):
        await steps.rehearse(lease)


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("system_identifier", "system identifier"),
        ("database", "database"),
        ("target", "target"),
        ("migration_head", "newest migration"),
    ],
)
async def test_a_snapshot_of_something_else_is_not_rehearsed(
    project: Project, field: str, word: str
):
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    lease = await project.begin()
    await steps.take_snapshot(lease)
    await project.execute(
        f"UPDATE airlock.deploy SET snapshot = jsonb_set(snapshot, '{{{field}}}', '\"other\"')"
    )
    with pytest.raises(Refused, match=f"its {word} is other, expected .*airlock deploy prod"):
        await steps.rehearse(lease)


async def test_the_rehearsal_of_a_runner_that_was_taken_over_is_not_recorded(project: Project):
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await project.take_over(lease)
    with pytest.raises(LeaseLost):
        await steps.rehearse(lease)


async def test_a_physical_snapshot_is_rehearsed_on_a_server_of_its_own(
    project: Project, monkeypatch
):
    await project.execute(DEALS)
    project.write(1, *SCORE)
    path = project.root / "airlock.toml"
    text = path.read_text().replace('"logical"', '"physical"')
    text = text.replace('[targets.prod.clone]\ndev_url_env = "DEV_URL"\n', "")
    path.write_text(text.replace('"PROD_URL"', '"PROD_URL"\nreplication_url_env = "REPL_URL"'))
    monkeypatch.setenv("REPL_URL", project.database.superuser_url)
    found = await rehearse(project)
    assert (found.provider, found.verdict, found.rows_compared) == ("physical", "exact", 51)


# ---------------------------------------------------------------- contents


async def test_contents_are_equal_whatever_the_order_of_rows_and_columns(database):
    async with connect(database.url) as conn:
        await conn.execute(
            "CREATE TABLE a (id int, \"b c\" text); INSERT INTO a VALUES (1, 'x'), (2, NULL);"
            "CREATE TABLE b (\"b c\" text, id int); INSERT INTO b VALUES (NULL, 2), ('x', 1);"
            "CREATE TABLE c (LIKE a); INSERT INTO c VALUES (1, 'x'), (2, 'NULL');"
            "CREATE TABLE empty ()"
        )
        columns = {("public", name): ["b c", "id"] for name in ("a", "b", "c")}
        found = await contents.read_contents(
            conn, columns | {("public", "empty"): []}, max_bytes=2**30
        )
    by_name = {name: content for (_, name), content in found.tables.items()}
    assert by_name["a"] == by_name["b"]
    assert by_name["a"] != by_name["c"]
    assert by_name["empty"].rows == 0
    assert found.rows == 6


async def test_new_problems_are_those_that_were_not_there_before(project: Project):
    await project.execute("CREATE TABLE a (id int, CONSTRAINT c CHECK (id > 0))")
    before = await project.catalogue()
    await project.execute("ALTER TABLE a ADD CONSTRAINT d CHECK (id > 1) NOT VALID")
    after = await project.catalogue()
    assert len(rehearsal.new_problems(before, after)) == 1
    assert rehearsal.new_problems(after, after) == ()
