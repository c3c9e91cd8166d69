"""The ledger of a database that is replaced, carried into the one that takes its place.

The history belongs to the target, whatever database it has. ``airlock.kept`` and
``airlock.backfill`` stay behind: their rows and keys are of the old database, and may be of a
person's. Of the source's ledger nothing is carried but which migrations stand; its journal may
quote data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from airlock import ledger, postgres
from airlock.ledger import Lease
from airlock.plan import AppliedMigration
from airlock.postgres import Conn, quote_ident

# In the order of their foreign keys, each with its key.
_TABLES = {
    "catalogue": ("fingerprint",),
    "deploy": ("id",),
    "migration": ("deploy", "version"),
    "event": ("sequence",),
    "alert": ("id",),
    "delivery": ("alert", "channel"),
    "client": ("deploy", "fence"),
}
# Rows of these never change, or are what they are in the database they are in.
_WRITTEN_ONCE = ("catalogue", "migration", "event")


async def carry(old: Conn, new: Conn, lease: Lease) -> None:
    """Bring the ledger of ``new`` up to what ``old`` has. Safe to repeat, and in either direction.

    What stood in ``old`` is "replaced" in ``new``.
    """
    await ledger.ensure(new)
    async with old.transaction(isolation="repeatable_read", readonly=True), new.transaction():
        for table in _TABLES:
            await _fetch(old, new, table)
        await new.execute(postgres.query("refresh_replaced"))
        for table, key in _TABLES.items():
            if table == "event":
                await new.execute(
                    postgres.with_values(postgres.query("refresh_events"), lease.deploy)
                )
            else:
                await _upsert(new, table, key)
            await new.execute(f"DROP TABLE pg_temp.{_copy(table)}")
        fence = await old.fetchval("SELECT last_value FROM airlock.fence")
        await new.fetch(postgres.query("refresh_numbers"), fence)


def _copy(table: str) -> str:
    return quote_ident(f"carried_{table}")


async def _columns(conn: Conn, table: str) -> list[str]:
    rows = await conn.fetch(
        "SELECT attname AS name FROM pg_catalog.pg_attribute WHERE attnum > 0"
        " AND NOT attisdropped AND attrelid = pg_catalog.to_regclass($1) ORDER BY attnum",
        f"airlock.{table}",
    )
    return [row["name"] for row in rows]


async def _fetch(old: Conn, new: Conn, table: str) -> None:
    """The rows of one table, in a temporary one of ``new``."""
    columns = await _columns(new, table)
    named = ", ".join(map(quote_ident, columns))
    await new.execute(
        f"CREATE TEMP TABLE {_copy(table)} ON COMMIT DROP AS"  # noqa: S608 – our own names
        f" SELECT {named} FROM airlock.{quote_ident(table)} WHERE false"
    )
    # In a file without a name: a ledger of many years does not fit into memory.
    with tempfile.TemporaryFile() as rows:
        await old.copy_from_table(
            table, schema_name="airlock", columns=columns, output=rows, format="binary"
        )
        rows.seek(0)
        await new.copy_to_table(
            _copy(table).strip('"'), columns=columns, source=rows, format="binary"
        )


async def _upsert(new: Conn, table: str, key: Sequence[str]) -> None:
    columns = await _columns(new, table)
    named = ", ".join(map(quote_ident, columns))
    changed = ", ".join(
        f"{quote_ident(name)} = excluded.{quote_ident(name)}"
        for name in columns
        if name not in key and table not in _WRITTEN_ONCE
    )
    await new.execute(
        f"INSERT INTO airlock.{quote_ident(table)} ({named}) OVERRIDING SYSTEM VALUE"  # noqa: S608
        f" SELECT {named} FROM pg_temp.{_copy(table)} ON CONFLICT"
        + (
            f" ({', '.join(map(quote_ident, key))}) DO UPDATE SET {changed}"
            if changed
            else " DO NOTHING"
        )
    )


async def adopt(conn: Conn, lease: Lease, rows: Sequence[AppliedMigration]) -> None:
    """Write down the migrations that came with the copy, as they stand at the source."""
    await conn.executemany(
        postgres.query("refresh_adopt"),
        [
            (
                lease.deploy,
                row.version,
                row.name,
                row.checksum,
                row.forward,
                row.reverse,
                position,
                row.segments_done,
                row.applied_at,
            )
            for position, row in enumerate(rows, 1)
        ],
    )
