"""What a backup must know about production, read once before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airlock.errors import Refused
from airlock.postgres import CATALOGUE_S, Conn, connect, query
from airlock.settings import Target

# What a session can see or what a migration's cost depends on. A clone does not read
# production's files, so these travel with the snapshot.
SETTINGS = (
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "array_nulls",
    "bytea_output",
    "default_table_access_method",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_isolation",
    "extra_float_digits",
    "full_page_writes",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "quote_all_identifiers",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "transform_null_equals",
    "wal_level",
    "wal_log_hints",
    "xmlbinary",
    "xmloption",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Production's server, database and roles, as the two roles of the target see them."""

    role: str
    server_version: str
    server_major: int
    system_identifier: str
    wal_lsn: str
    wal_level: str
    max_wal_senders: int
    ssl_library: str
    is_standby: bool
    tablespaces: tuple[str, ...]
    cluster_bytes: int
    database_bytes: int
    bootstrap_superuser: str
    extensions: tuple[str, ...]
    libraries: tuple[str, ...]
    backup_role: str
    backup_role_is_superuser: bool
    backup_role_may_replicate: bool
    unreadable: tuple[str, ...]
    settings: dict[str, str]
    database: dict[str, Any]
    grants: tuple[dict[str, Any], ...]
    database_settings: tuple[dict[str, Any], ...]
    roles: tuple[dict[str, Any], ...]
    memberships: tuple[dict[str, Any], ...]
    needed_roles: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.database["name"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Facts:
        """The facts that ``to_json`` wrote, after JSON made its tuples lists."""
        values: dict[str, Any] = dict(plain)
        for name in _TUPLES:
            values[name] = tuple(values[name])
        return cls(**values)


_TUPLES = tuple(field.name for field in fields(Facts) if str(field.type).startswith("tuple"))


async def read(target: Target) -> Facts:
    """The facts, through the production role and the role that takes the backups.

    Raises Refused when the two URLs lead to different servers or databases.
    """
    # The size of a database is the sum of all of its files.
    async with connect(target.database_url, purpose="snapshot", limit_s=CATALOGUE_S) as conn:
        mine = await _one(conn, "snapshot_facts")
        database = await _one(conn, "snapshot_database")
    async with connect(target.replication_url, purpose="snapshot", limit_s=CATALOGUE_S) as conn:
        backup = await _one(conn, "snapshot_facts")
        backup_database = await conn.fetchval("SELECT pg_catalog.current_database()")
        _refuse_another_server(target, mine, database["name"], backup, backup_database)
        shown = await conn.fetch(
            # What the session began with: in ours the search path is another one.
            "SELECT name, reset_val AS setting FROM pg_catalog.pg_settings WHERE name = ANY($1)",
            [*SETTINGS, "shared_preload_libraries"],
        )
        settings = {row["name"]: row["setting"] for row in shown}
        libraries = str(settings.pop("shared_preload_libraries", ""))
        grants = await _many(conn, "snapshot_database_grants") if database["has_grants"] else ()
        return Facts(
            role=mine["role"],
            server_version=mine["server_version"],
            server_major=mine["server_major"],
            system_identifier=mine["system_identifier"],
            wal_lsn=backup["wal_lsn"],
            wal_level=mine["wal_level"],
            max_wal_senders=mine["max_wal_senders"],
            ssl_library=mine["ssl_library"],
            is_standby=mine["is_standby"],
            tablespaces=tuple(mine["tablespaces"] or ()),
            cluster_bytes=max(backup["cluster_bytes"] or 0, backup["database_bytes"]),
            database_bytes=mine["database_bytes"],
            bootstrap_superuser=mine["bootstrap_superuser"],
            extensions=tuple(mine["extensions"] or ()),
            libraries=tuple(part.strip(' "') for part in libraries.split(",") if part.strip(' "')),
            backup_role=backup["role"],
            backup_role_is_superuser=backup["is_superuser"],
            backup_role_may_replicate=backup["is_replication"] or backup["is_superuser"],
            unreadable=tuple(row["relation"] for row in await _many(conn, "snapshot_unreadable")),
            settings=settings,
            database=database,
            grants=grants,
            database_settings=await _many(conn, "snapshot_settings"),
            roles=await _many(conn, "snapshot_roles"),
            memberships=await _many(conn, "snapshot_memberships"),
            needed_roles=tuple(row["name"] for row in await _many(conn, "snapshot_needed_roles")),
        )


def _refuse_another_server(
    target: Target,
    mine: Mapping[str, Any],
    database: str,
    backup: Mapping[str, Any],
    backup_database: str,
) -> None:
    if (mine["system_identifier"], database) == (backup["system_identifier"], backup_database):
        return
    raise Refused(
        f"{target.replication_url_env} leads to database {backup_database} of the server "
        f"{backup['system_identifier']}, but {target.database_url_env} to {database} of "
        f"{mine['system_identifier']}. Both must name the same database; mend one."
    )


async def _one(conn: Conn, name: str) -> dict[str, Any]:
    row = await conn.fetchrow(query(name))
    return dict(row) if row is not None else {}


async def _many(conn: Conn, name: str) -> tuple[dict[str, Any], ...]:
    return tuple(dict(row) for row in await conn.fetch(query(name)))
