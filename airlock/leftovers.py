"""What a statement that runs in no transaction leaves when it is cut off, and its removal.

PostgreSQL commits such a statement in several parts. Between them stand an invalid index, or a
partition whose detaching is pending; the catalogue says which, and how far the statement came.

The session has the path of the migration, by which its names are looked up; what we ask about them
is pinned.
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
        return not any(await postgres.named(conn, *_dropped(statement)))
    if (pair := _detached(statement)) is not None:
        there = await postgres.named(conn, *pair)
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
            rows = await _ask(conn, "index_qualified", *await _index(conn, statement))
        case "ReindexStmt":
            place = await _reindexed(conn, statement.node)
            rows = await _ask(conn, "index_leftovers", *place, deploy, version)
        case "DropStmt" if back:
            dropped = await postgres.named(conn, *_dropped(statement))
            rows = await _ask(conn, "index_invalid", dropped)
        case _:
            rows = []
    return [row["name"] for row in rows]


async def _validity(conn: Conn, statement: Statement) -> bool | None:
    """Whether the index of a CREATE INDEX is valid; None when there is none of that name."""
    rows = await _ask(conn, "index_validity", *await _index(conn, statement))
    return rows[0]["is_valid"] if rows else None


async def _is_pending(conn: Conn, parent: str, partition: str) -> bool | None:
    """Whether a detaching is pending; None when the one is no partition of the other."""
    rows = await _ask(conn, "detach_pending", *await postgres.named(conn, parent, partition))
    return rows[0]["is_pending"] if rows else None


async def _ask(conn: Conn, name: str, *values: object) -> list[asyncpg.Record]:
    async with postgres.pinned(conn):
        return await conn.fetch(postgres.query(name), *values)


# ---------------------------------------------------------------- what a statement names


async def _index(conn: Conn, statement: Statement) -> tuple[int | None, str]:
    """The table, and the bare name of the index, which is in the table's schema."""
    (table,) = await postgres.named(conn, _relation(statement.node["relation"]))
    return table, statement.node.get("idxname", "")


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


async def _reindexed(conn: Conn, node: Node) -> tuple[int | None, str | None]:
    """The relation, 0 where it is gone, or the schema; neither for the whole database."""
    if "relation" in node:
        (relation,) = await postgres.named(conn, _relation(node["relation"]))
        return relation or 0, None
    whole = node["kind"] != "REINDEX_OBJECT_SCHEMA"
    return None, None if whole else quote_ident(node["name"])


def _relation(node: Node) -> str:
    schema = [node["schemaname"]] if "schemaname" in node else []
    return quote_ident(*schema, node["relname"])
