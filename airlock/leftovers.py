"""What a statement that runs in no transaction leaves when it is cut off, and its removal.

PostgreSQL commits such a statement in several parts. Between them stand an invalid index, or a
partition whose detaching is pending; the catalogue says which, and how far the statement came.
"""

from __future__ import annotations

import logging

import asyncpg

from airlock import postgres
from airlock.postgres import Conn, quote_ident
from airlock.syntax import Node, Statement

log = logging.getLogger(__name__)

# What CREATE and DROP of a database, a tablespace or a subscription answer when an earlier try got
# through. They do all of their work or nothing.
_DONE_BEFORE = {"Create": ("42P04", "42710"), "Drop": ("3D000", "42704", "42P01")}


def done_before(statement: Statement) -> tuple[str, ...]:
    """The SQLSTATEs by which the server says that a statement was carried out before."""
    found = [codes for word, codes in _DONE_BEFORE.items() if statement.kind.startswith(word)]
    return found[0] if found else ()


async def is_done(conn: Conn, statement: Statement) -> bool:
    """Whether there is already what the statement, run before and cut off, was meant to leave.

    For what no ``sweep`` is needed after. REINDEX and VACUUM may simply run again.
    """
    if statement.kind == "IndexStmt":
        return bool(await _validity(conn, statement))
    if statement.kind == "DropStmt":
        names = [await _regclass(conn, name) for name in _dropped(statement)]
        return not any(names)
    if (pair := _detached(statement)) is not None:
        there = [await _regclass(conn, name) for name in pair]
        return all(there) and await _is_pending(conn, *pair) is None
    return False


async def sweep(
    conn: Conn,
    statement: Statement,
    *,
    deploy: int,
    version: int,
    lock_ms: int,
    back: bool = False,
) -> None:
    """Bring what the cut-off statement left to where it does no harm, outside of a transaction.

    deploy, version: the migration, which has its row already. What is older is not ours.
    lock_ms: how long to wait for the one lock that keeps others waiting.
    back: the statement shall not be run again. An index that it had begun to drop goes as well,
        and the way back makes it anew.
    """
    for name in await _invalid(conn, statement, deploy=deploy, version=version, back=back):
        # IF NOT EXISTS would accept it, and the next try would call it a success.
        log.info("Dropping the invalid index %s", name)
        await _drop(conn, name)
    if (pair := _detached(statement)) is not None and await _is_pending(conn, *pair):
        parent, partition = pair
        log.info("Finishing to detach %s from %s", partition, parent)
        await conn.execute(
            f"SET LOCAL lock_timeout = {lock_ms};"
            f" ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE"
        )


async def _drop(conn: Conn, name: str) -> None:
    sql = f"DROP INDEX CONCURRENTLY IF EXISTS {name}"
    try:
        await conn.execute(sql)
    except asyncpg.InsufficientPrivilegeError as error:
        if not name.startswith("pg_toast."):
            raise
        # It belongs to no schema of ours, and the table works with it.
        log.warning("%s was left: %s. As a superuser run: %s;", name, error, sql)


async def _invalid(
    conn: Conn, statement: Statement, *, deploy: int, version: int, back: bool
) -> list[str]:
    """The invalid indexes, quoted and qualified, that the statement can have left."""
    match statement.kind:
        case "IndexStmt" if await _validity(conn, statement) is False:
            rows = await conn.fetch(postgres.query("index_qualified"), *_index(statement))
        case "ReindexStmt":
            place = _reindexed(statement.node)
            rows = await conn.fetch(postgres.query("index_leftovers"), *place, deploy, version)
        case "DropStmt" if back:
            rows = await conn.fetch(postgres.query("index_invalid"), _dropped(statement))
        case _:
            rows = []
    return [row["name"] for row in rows]


async def _validity(conn: Conn, statement: Statement) -> bool | None:
    """Whether the index of a CREATE INDEX is valid; None when there is none of that name."""
    return await conn.fetchval(postgres.query("index_validity"), *_index(statement))


async def _is_pending(conn: Conn, parent: str, partition: str) -> bool | None:
    """Whether a detaching is pending; None when the one is no partition of the other."""
    return await conn.fetchval(
        "SELECT inhdetachpending FROM pg_catalog.pg_inherits WHERE inhparent ="
        " pg_catalog.to_regclass($1) AND inhrelid = pg_catalog.to_regclass($2)",
        parent,
        partition,
    )


async def _regclass(conn: Conn, name: str) -> str | None:
    return await conn.fetchval("SELECT pg_catalog.to_regclass($1)::text", name)


# ---------------------------------------------------------------- what a statement names


def _index(statement: Statement) -> tuple[str, str]:
    """The table as written, and the bare name of the index, which is in the table's schema."""
    return _relation(statement.node["relation"]), statement.node.get("idxname", "")


def _dropped(statement: Statement) -> list[str]:
    return [
        quote_ident(*(part["String"]["sval"] for part in item["List"]["items"]))
        for item in statement.node["objects"]
    ]


def _detached(statement: Statement) -> tuple[str, str] | None:
    """Parent and partition of a DETACH CONCURRENTLY, which stands alone in its statement."""
    if statement.kind != "AlterTableStmt":
        return None
    partition = statement.node["cmds"][0]["AlterTableCmd"]["def"]["PartitionCmd"]["name"]
    return _relation(statement.node["relation"]), _relation(partition)


def _reindexed(node: Node) -> tuple[str | None, str | None]:
    """The relation or the schema; neither for the whole database."""
    if "relation" in node:
        return _relation(node["relation"]), None
    whole = node["kind"] != "REINDEX_OBJECT_SCHEMA"
    return None, None if whole else quote_ident(node["name"])


def _relation(node: Node) -> str:
    schema = [node["schemaname"]] if "schemaname" in node else []
    return quote_ident(*schema, node["relname"])
