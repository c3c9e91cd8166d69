"""Lint that may look at a database: sizes, indexes, and what is deployed already."""

from __future__ import annotations

from pathlib import Path

from airlock import review, settings
from airlock.effects import LockMode
from airlock.lint import Finding, Level, Policy, render
from airlock.preview import preview
from tests.postgres.conftest import Project

TABLES = """
CREATE TABLE sources (id bigint PRIMARY KEY);
CREATE TABLE deals (number bigint PRIMARY KEY, source_id bigint REFERENCES sources,
    name varchar(50));
CREATE INDEX idx_deals_source_id ON deals (source_id);
CREATE TABLE small (id bigint PRIMARY KEY, a int);
INSERT INTO deals SELECT n, NULL, repeat('x', 40) FROM generate_series(1, 20000) AS n;
INSERT INTO small SELECT n FROM generate_series(1, 40) AS n;
ANALYZE deals, small;
"""


async def findings(project: Project, sql: str) -> dict[str, Finding]:
    path = project.root / "change.sql"
    path.write_text(sql)
    known = await review.look(project.url)
    found = review.review([path], None, Policy(), known, review.MAJOR)
    assert project.url not in render.text(found)
    return {each.rule: each for each in found.findings}


async def test_with_a_database_a_finding_says_how_long_for_how_much(project: Project):
    await project.execute(TABLES)
    found = await findings(project, "CREATE INDEX i ON deals (name);")
    assert "public.deals (ShareLock), while the index is built: under 1 s for" in (
        found["index-not-concurrent"].message
    )
    assert "MB at 60 MB/s" in found["index-not-concurrent"].message


async def test_with_a_database_it_is_known_what_is_small_what_has_an_index_and_what_is_free(
    project: Project,
):
    await project.execute(TABLES)
    assert await findings(project, "UPDATE small SET a = 1;") == {}
    found = await findings(project, "UPDATE deals SET name = 'x' WHERE name = 'y';")
    assert found["unbatched-change"].level is Level.ERROR
    assert "of 20,000" in found["unbatched-change"].message
    assert "key=number" in found["unbatched-change"].remedy
    key = "ALTER TABLE deals ADD CONSTRAINT k FOREIGN KEY (%s) REFERENCES sources NOT VALID;"
    assert await findings(project, key % "source_id") == {}
    assert list(await findings(project, key % "number")) == []
    wider = "ALTER TABLE deals ALTER COLUMN name TYPE varchar(%d);"
    assert [each.level for each in (await findings(project, wider % 60)).values()] == [Level.INFO]
    assert "column-type-change" in await findings(project, wider % 40)
    rename = await findings(project, "ALTER TABLE deals RENAME COLUMN name TO title;")
    assert "ADD COLUMN title varchar(50);" in rename["rename-column"].remedy


async def test_with_a_target_only_what_is_not_deployed_is_judged(project: Project):
    project.write(1, "CREATE TABLE a (id serial PRIMARY KEY);", "DROP TABLE a;")
    await project.deploy()
    project.write(2, "CREATE INDEX i ON a (id);", "DROP INDEX i;")
    project.write(3, "CREATE TABLE b (id bigint);", "DROP TABLE b;")
    project.write(4, "CREATE INDEX j ON b (id);", "DROP INDEX j;")
    known = await review.look(project.url)
    found = review.review([], settings.load(), Policy(), known, review.MAJOR)
    assert found.files == 3
    assert [(Path(each.file).name, each.rule) for each in found.findings] == [
        ("002_step.sql", "index-not-concurrent")
    ]
    assert LockMode.SHARE.pg_name in found.findings[0].message
    planned = await preview(project.target)
    found = review.review_plan(project.target, planned)
    assert [(each.file, each.rule) for each in found.findings] == [
        ("002_step.sql", "index-not-concurrent")
    ]
