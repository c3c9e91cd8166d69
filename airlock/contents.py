"""What the rows of a database are, as one number per table.

Order does not matter: the hashes of the rows, as text, are summed. Columns are named, so that a
column which was dropped and added again may stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from airlock.postgres import Conn, quote_ident

Table = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """How many rows a table has, and the sum of their hashes."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The tables that were read, and those that were not, with the reason."""

    tables: Mapping[Table, Content]
    left_out: Mapping[Table, str]

    @property
    def rows(self) -> int:
        return sum(content.rows for content in self.tables.values())


async def read_contents(
    conn: Conn, columns: Mapping[Table, Sequence[str]], *, max_bytes: int
) -> Contents:
    """Read each table once, smallest first, until ``max_bytes`` of tables have been read."""
    sizes = {table: await _size(conn, table) for table in columns}
    read: dict[Table, Content] = {}
    left_out: dict[Table, str] = {}
    total = 0
    for table in sorted(columns, key=lambda each: (sizes[each], each)):
        total += sizes[table]
        if total > max_bytes:
            left_out[table] = f"beyond compare_max_bytes = {max_bytes}"
            continue
        try:
            read[table] = await _read(conn, table, columns[table])
        except asyncpg.InsufficientPrivilegeError as error:
            left_out[table] = str(error)
    return Contents(tables=read, left_out=left_out)


async def changed_columns(
    before: Conn, after: Conn, table: Table, columns: Sequence[str]
) -> tuple[str, ...]:
    """The columns of one table whose values differ between two databases."""
    return tuple(
        [
            column
            for column in columns
            if await _read(before, table, [column]) != await _read(after, table, [column])
        ]
    )


def _row(columns: Sequence[str]) -> str:
    return f"ROW({', '.join(f't.{quote_ident(column)}' for column in columns)})"


async def _read(conn: Conn, table: Table, columns: Sequence[str]) -> Content:
    digest = f"pg_catalog.hashtextextended({_row(columns)}::pg_catalog.text, 0)::numeric"
    # ONLY: partitions and children are tables of their own. Identifiers are quoted.
    rows = await conn.fetch(
        f"SELECT pg_catalog.count(*) AS rows, pg_catalog.sum({digest})::pg_catalog.text AS digest"  # noqa: S608
        f" FROM ONLY {quote_ident(*table)} AS t"
    )
    return Content(rows=rows[0]["rows"], digest=rows[0]["digest"] or "0")


async def _size(conn: Conn, table: Table) -> int:
    return int(
        await conn.fetchval(
            "SELECT COALESCE(pg_catalog.pg_table_size(pg_catalog.to_regclass($1)), 0)",
            quote_ident(*table),
        )
    )
