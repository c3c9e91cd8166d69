"""Which statements run in one transaction, and which run in none."""

from __future__ import annotations

import pytest

from airlock import migration, syntax
from airlock.effects import LockMode, needs_no_transaction

# tests/postgres/test_apply.py asks a server whether these two lists are true.
IN_NONE = (
    "CREATE INDEX CONCURRENTLY i ON t (a)",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
    "DROP INDEX CONCURRENTLY i",
    "REINDEX INDEX CONCURRENTLY i",
    "REINDEX (CONCURRENTLY) TABLE t",
    "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
    "REINDEX SCHEMA s",
    "VACUUM t",
    "VACUUM (FULL) t",
    "CLUSTER",
    "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY",
    "CREATE DATABASE d",
    "DROP DATABASE d",
    "ALTER DATABASE d SET TABLESPACE s",
    "CREATE TABLESPACE s LOCATION '/nowhere'",
    "DROP TABLESPACE s",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p",
    "DISCARD ALL",
)
IN_ONE = (
    "CREATE INDEX i ON t (a)",
    "DROP INDEX i",
    "REINDEX TABLE t",
    "REINDEX (CONCURRENTLY false) TABLE t",
    "REINDEX (CONCURRENTLY off) INDEX i",
    "ANALYZE t",
    "CLUSTER t USING i",
    "ALTER TABLE p DETACH PARTITION p1",
    "ALTER TABLE p DETACH PARTITION p1 FINALIZE",
    "ALTER TABLE t ADD COLUMN b int",
    "ALTER TYPE e ADD VALUE 'x'",
    "TRUNCATE t",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    "ALTER DATABASE d SET work_mem = '1MB'",
    "DISCARD PLANS",
    "DROP TABLE t",
    "DO $$ BEGIN EXECUTE 'VACUUM'; END $$",
)


@pytest.mark.parametrize("sql", IN_NONE)
def test_a_statement_that_postgresql_refuses_in_a_transaction_runs_outside(sql):
    (statement,) = syntax.parse(sql)
    assert needs_no_transaction(statement)


@pytest.mark.parametrize("sql", IN_ONE)
def test_every_other_statement_runs_inside(sql):
    (statement,) = syntax.parse(sql)
    assert not needs_no_transaction(statement)


C = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("SELECT 1; SELECT 2;", [("in", 2)]),
        (C, [("out", 1)]),
        (C + C, [("out", 1), ("out", 1)]),
        ("SELECT 1;" + C + "SELECT 2; SELECT 3;", [("in", 1), ("out", 1), ("in", 2)]),
        (C + "SELECT 2;", [("out", 1), ("in", 1)]),
    ],
)
def test_segments_are_the_longest_transactions_that_the_order_allows(sql, expected):
    found = migration.script(sql)
    assert [("in" if s.transactional else "out", len(s.statements)) for s in found] == expected


def test_lock_modes_have_the_names_that_postgresql_shows():
    assert [mode.pg_name for mode in LockMode] == [
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ]
    assert all(LockMode.from_pg_name(mode.pg_name) is mode for mode in LockMode)
    assert [mode for mode in LockMode if mode.blocks_reads] == [LockMode.ACCESS_EXCLUSIVE]
    assert min(mode for mode in LockMode if mode.blocks_writes) is LockMode.SHARE
