"""A backfill's header, and the range in its statement: added where it is meant, or refused."""

from __future__ import annotations

import pytest

from airlock import batch, migration
from airlock.batch import Backfill
from airlock.errors import Refused

HEADER = batch.EXAMPLE

HEADERS = {
    "-- Airlock: backfill table=deals key=id batch=5000": (("deals",), "id", 5000),
    "-- airlock:  BACKFILL key=ID  table=Public.Deals": (("public", "deals"), "id", batch.BATCH),
    '--airlock: backfill table="A b"."c""d" key="I.d" batch=1': (("A b", 'c"d'), "I.d", 1),
}
NO_HEADERS = {
    "no key": "-- Airlock: backfill table=deals",
    "a word that is nearly it": "-- Airlock: backfil table=deals key=id",
    "no rows": "-- Airlock: backfill table=deals key=id batch=0",
    "a million and one": "-- Airlock: backfill table=deals key=id batch=1000001",
    "rows in words": "-- Airlock: backfill table=deals key=id batch=many",
    "a key of two parts": "-- Airlock: backfill table=deals key=deals.id",
    "an option that there is not": "-- Airlock: backfill table=deals key=id pause=3",
    "spaces": "-- Airlock: backfill table = deals key = id",
    "prose behind": "-- Airlock: backfill table=deals key=id, in batches",
    "two": f"{HEADER}\n{HEADER}",
}


@pytest.mark.parametrize(("line", "said"), HEADERS.items())
def test_a_header_names_table_key_and_batch_as_postgresql_reads_names(line, said):
    found = batch.header(f"-- Purpose: a test\n{line}\n\nSELECT 1;")
    assert found is not None
    assert (found.table, found.key, found.batch) == said


@pytest.mark.parametrize("lines", NO_HEADERS.values(), ids=NO_HEADERS)
def test_a_header_that_is_not_understood_is_no_ordinary_comment(lines):
    with pytest.raises(Refused, match=r"expected was|Two lines|Mend it"):
        batch.header(lines)


def test_other_comments_are_none():
    assert batch.header("-- Airlock: it is\n-- airlock: allow x because y\nSELECT 1;") is None


ABOVE = (
    '"deals"."id" OPERATOR(pg_catalog.<=) ($1::pg_catalog.text)::bigint'
    ' AND "deals"."id" OPERATOR(pg_catalog.>) ($2::pg_catalog.text)::bigint'
)
# What stands before and after the range; the tree says whether it is the statement's WHERE.
RANGED = (
    ("UPDATE deals SET a = 1", f"UPDATE deals SET a = 1\nWHERE {ABOVE}"),
    (
        "UPDATE deals SET a = 1 WHERE b OR c",
        f"UPDATE deals SET a = 1 WHERE {ABOVE} AND ( b OR c\n)",
    ),
    ("DELETE FROM deals WHERE b -- all", f"DELETE FROM deals WHERE {ABOVE} AND ( b -- all\n)"),
    (
        "UPDATE deals SET a = d.where FROM d WHERE d.where",
        f"UPDATE deals SET a = d.where FROM d WHERE {ABOVE} AND ( d.where\n)",
    ),
    (
        "UPDATE deals SET a = (SELECT 1 WHERE b), c = ' where ' WHERE d",
        f"UPDATE deals SET a = (SELECT 1 WHERE b), c = ' where ' WHERE {ABOVE} AND ( d\n)",
    ),
    (
        "UPDATE deals SET a = $$ WHERE true $$",
        f"UPDATE deals SET a = $$ WHERE true $$\nWHERE {ABOVE}",
    ),
)


@pytest.mark.parametrize(("sql", "ranged"), RANGED, ids=[sql for sql, _ in RANGED])
def test_the_range_goes_in_front_of_the_statements_own_condition(sql, ranged):
    (found,) = migration.script(f"{HEADER}\n{sql}\n;")
    assert isinstance(found, Backfill)
    assert found.ranged("bigint", first=False) == ranged


def test_a_text_that_means_something_else_is_not_taken(monkeypatch):
    wrong = f"UPDATE deals SET a = 1 WHERE {ABOVE} AND b OR c"
    monkeypatch.setattr(batch, "_candidates", lambda *_: iter([wrong]))
    with pytest.raises(Refused, match="no place was found for the range"):
        migration.script(f"{HEADER}\nUPDATE deals SET a = 1 WHERE b OR c;")


UNBATCHED = {
    "two statements": ("UPDATE deals SET a = 1; ANALYZE deals;", "holds 2 statements"),
    "an INSERT": ("INSERT INTO deals SELECT 1;", "one UPDATE or DELETE"),
    "another table": ("UPDATE offers SET a = 1;", "names the table deals"),
    "the key": ("UPDATE deals SET (a, id) = (1, 2);", "changes id"),
    "RETURNING": ("UPDATE deals SET a = 1 RETURNING a;", "nobody to return to"),
    "a DELETE inside": (
        "WITH gone AS (DELETE FROM offers RETURNING id) UPDATE deals SET a = 1;",
        "once per batch",
    ),
    "a cursor": ("UPDATE deals SET a = 1 WHERE CURRENT OF c;", "cursors and parameters"),
}


def file_of(tmp_path, sql: str, notes: str) -> migration.MigrationFile:
    path = tmp_path / "001_fill.sql"
    path.write_text(f"{HEADER}\n{sql}\n-- ROLLBACK NOTES\n{notes}\n", encoding="utf-8")
    return migration.read_file(path)


@pytest.mark.parametrize(("sql", "said"), UNBATCHED.values(), ids=UNBATCHED)
def test_what_cannot_be_batched_is_refused_by_its_file(tmp_path, sql, said):
    with pytest.raises(Refused, match=rf"^001_fill\.sql: .*{said}"):
        migration.parse(file_of(tmp_path, sql, "-- Nothing to undo."))


# The notes, and whether their SQL runs in batches.
NOTES = {
    "its own UPDATE": ("-- UPDATE deals SET a = NULL;", True),
    "nothing": ("-- To rollback this migration:\n-- Nothing to undo: a goes with 011.", False),
    "something else": ("-- DELETE FROM offers;\n-- ANALYZE deals;", False),
}


@pytest.mark.parametrize(("notes", "batched"), NOTES.values(), ids=NOTES)
def test_the_way_back_is_batched_where_it_changes_the_same_table(tmp_path, notes, batched):
    found = migration.parse(file_of(tmp_path, "UPDATE deals SET a = 1;", notes))
    segments = migration.script(found.reverse)
    assert [isinstance(each, Backfill) for each in segments] == [batched]


def test_a_way_back_that_would_change_all_rows_at_once_is_refused(tmp_path):
    notes = "-- UPDATE deals SET a = NULL;\n-- ANALYZE deals;"
    with pytest.raises(Refused, match=r"001_fill\.sql, ROLLBACK NOTES: It holds 2 statements"):
        migration.parse(file_of(tmp_path, "UPDATE deals SET a = 1;", notes))


# What is set, and whether the columns a and b would be filled again in the same way.
MADE = {
    "a = 1, b = c": True,
    "(a, b, d) = (SELECT c, 2, 3)": True,
    "a = 1": False,
    "a = coalesce(a, 0), b = 1": False,
    "a = 1, b = deals.a": False,
    "a = 1, b = length(deals::text)": False,
    "a = 1, b = (SELECT count(*) FROM (SELECT deals.*) AS x)": False,
}


@pytest.mark.parametrize(("values", "made"), MADE.items(), ids=MADE)
def test_what_a_backfill_makes_from_other_columns_can_be_made_again(values, made):
    (found,) = migration.script(f"{HEADER}\nUPDATE deals SET {values} WHERE a IS NULL;")
    assert isinstance(found, Backfill)
    assert found.makes(("a", "b")) is made
    assert not found.makes(())
