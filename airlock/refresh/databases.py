"""The databases of a refresh on the target's server: made, put in each other's place, dropped.

What really happened is read from pg_database: a name can be anybody's, an oid is one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from airlock import ledger, postgres
from airlock.errors import AirlockError, Refused, Transient
from airlock.postgres import Conn, on_database, quote_ident, quote_literal
from airlock.replacement import Kind, Replacement, named
from airlock.settings import Target
from airlock.snapshot import logical

log = logging.getLogger(__name__)

# Databases are made and renamed from here; no session may be in the one that is renamed.
MAINTENANCE = "postgres"
_END_SESSIONS_S = 0.05
# What is set for a role or a database is meant for its users, and a copy takes hours.
_UNHURRIED = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database as its server knows it: what a plain dump does not carry.

    owns: whether the role may do what the owner may.
    row, grants, settings: as snapshot_database.sql, snapshot_database_grants.sql and
        snapshot_settings.sql give them. Without grants of its own everybody may connect.
    """

    oid: int
    system: str
    role: str
    owns: bool
    connection_limit: int
    row: Mapping[str, Any]
    grants: tuple[Mapping[str, Any], ...] | None
    settings: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def owner(self) -> str:
        return str(self.row["owner"])


async def read(conn: Conn) -> Database:
    """The database that the connection is in, and its role."""
    here = await conn.fetchrow(postgres.query("refresh_here"))
    row = await conn.fetchrow(postgres.query("snapshot_database"))
    assert here is not None  # noqa: S101 - for the type checker; we are in a database
    assert row is not None  # noqa: S101 - as above
    grants = await conn.fetch(postgres.query("snapshot_database_grants"))
    settings = await conn.fetch(postgres.query("snapshot_settings"))
    return Database(
        oid=here["oid"],
        system=here["system"],
        role=here["role"],
        owns=here["owns"],
        connection_limit=here["connection_limit"],
        row=dict(row),
        grants=tuple(dict(each) for each in grants) if row["has_grants"] else None,
        settings=tuple(dict(each) for each in settings if each["in_database"]),
    )


@asynccontextmanager
async def server(target: Target) -> AsyncGenerator[Conn]:
    """A connection to the target's server that is in none of the databases of a refresh."""
    variable = target.refresh.admin_url_env if target.refresh else None
    url = target.address(variable) if variable else target.database_url
    unhurried = postgres.with_settings(on_database(url, MAINTENANCE), _UNHURRIED)
    # To drop a large database takes its time.
    async with postgres.connect(unhurried, purpose="refresh", limit_s=postgres.TABLES_S) as conn:
        try:
            yield conn
        # Not OSError: steps run in this block, and a missing program is not the server's.
        except postgres.DRIVER_ERRORS as error:
            raise postgres.translate(error, f"the server of {target.name}") from error


def url_of(target: Target, database: str) -> str:
    """The target's own role in another database of its server, without limits that are set there.

    Everything that works on a build connects by it.
    """
    return postgres.with_settings(on_database(target.database_url, database), _UNHURRIED)


@asynccontextmanager
async def alone(target: Target) -> AsyncGenerator[None]:
    """The one refresh, or undo of one, that may work with this target's databases.

    Beside the ledger's lock, which goes with the database that is replaced.
    Raises Transient when somebody else is at it.
    """
    async with ledger.connection(target) as conn:
        name = await conn.fetchval("SELECT pg_catalog.current_database()")
    async with server(target) as conn:
        await postgres.stay_connected(conn)
        if not await conn.fetchval(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
            f"airlock refresh of database {name}",
        ):
            raise Transient(
                f"Another refresh of {target.name} is running, or is being undone. Wait for it, or "
                f"look at it: airlock status {target.name}"
            )
        yield


# ---------------------------------------------------------------- before any work


async def refuse_server(target: Target, here: Database) -> None:
    """Raises Refused when the role that makes databases cannot, or is somewhere else."""
    if here.name == MAINTENANCE:
        raise Refused(
            f"{target.name} is in database {MAINTENANCE}, from which databases are renamed, so it "
            f"cannot be replaced itself. Move it: ALTER DATABASE {MAINTENANCE} RENAME TO …, and "
            f"CREATE DATABASE {MAINTENANCE}; then mend {target.database_url_env}."
        )
    if not here.owns:
        role, owner = quote_ident(here.role), quote_ident(here.owner)
        raise Refused(
            f"Role {here.role} of {target.name} does not own database {here.name}, so it could "
            f"not make everything in a new one. Run: ALTER DATABASE {quote_ident(here.name)} OWNER "
            f"TO {role}; or: GRANT {owner} TO {role};"
        )
    async with server(target) as conn:
        admin = await conn.fetchrow(postgres.query("refresh_admin"), here.name)
        if admin is None or (admin["oid"], admin["system"]) != (here.oid, here.system):
            raise Refused(
                f"refresh.admin_url_env of {target.name} leads to another server than "
                f"{target.database_url_env}, which is in database {here.name} of "
                f"{here.system}. Both must name the same server; mend one."
            )
        if not admin["may_rename"]:
            role = quote_ident(admin["role"])
            raise Refused(
                f"Role {admin['role']} may not make and rename databases of {target.name}. As a "
                f"superuser run: ALTER ROLE {role} CREATEDB; GRANT {quote_ident(here.owner)} TO "
                f"{role}; or name another role's address in refresh.admin_url_env."
            )
        # Nothing is changed; the role is asked now, and not when hours of work are done.
        trial = conn.transaction()
        await trial.start()
        try:
            await _set(conn, here.name, here.settings)
        finally:
            await trial.rollback()


async def refuse_source(target: Target, here: Database, source: Target) -> None:
    """Raises Refused when the database to be replaced is the one that is copied."""
    async with ledger.connection(source) as conn:
        there = await read(conn)
    if here.system != there.system:
        return
    if here.name == there.name:
        raise Refused(
            f"{target.name} and {source.name} are one and the same: database {here.name} of the "
            f"server with system identifier {here.system}. A refresh would replace production. "
            f"Mend {target.database_url_env}, or the source in [targets.{target.name}.refresh]."
        )
    log.info(
        "%s and %s share a server; their databases are %s and %s",
        target.name, source.name, here.name, there.name,
    )  # fmt: skip


async def refuse_others(target: Target, here: Database, others: Iterable[Target]) -> None:
    """Raises Refused when the database to be replaced is one that nobody said may be.

    others: the targets without a refresh; one that is not set up here, or down, is passed over.
    """
    for other in others:
        try:
            async with ledger.connection(other) as conn:
                there = await read(conn)
        except AirlockError as error:
            log.info("Not compared with %s: %s", other.name, error)
            continue
        if (here.system, here.name) == (there.system, there.name):
            raise Refused(
                f"{target.name} is in database {here.name} of {here.system}, and so is "
                f"{other.name}, which has no [targets.{other.name}.refresh]: it may not be "
                f"replaced. Mend {target.database_url_env}."
            )


async def refuse_clone(target: Target, source: Target) -> None:
    """Raises Refused when the clone of a logical snapshot would lie beside the masked copy.

    Where production shares the server as well, its rows are there anyway.
    """
    if source.clone.dev_url_env is None:
        return
    async with postgres.connect(source.address(source.clone.dev_url_env), purpose="refresh") as dev:
        beside = await _system(dev)
    async with ledger.connection(target) as here, ledger.connection(source) as there:
        if beside == await _system(here) != await _system(there):
            raise Refused(
                f"Unmasked rows would be restored on the server of {target.name}: "
                f"{source.clone.dev_url_env}, where clones of {source.name} live, leads there. "
                f"Name another server in it, or leave clone.dev_url_env of {source.name} out, so "
                "that clones live on a server of Airlock's own."
            )


async def _system(conn: Conn) -> str:
    here = await conn.fetchrow(postgres.query("refresh_here"))
    assert here is not None  # noqa: S101 - for the type checker; we are in a database
    return here["system"]


# ---------------------------------------------------------------- made and dropped


async def create(target: Target, names: Replacement, deploy: int) -> Replacement:
    """An empty build database that only its owner and this target's role can enter.

    What an earlier try put into it is dropped with it. Returns the names with its oid.
    """
    if await _is_empty(target, names):
        return names
    async with ledger.connection(target) as conn:
        here = await read(conn)
    async with server(target) as conn:
        if not await _drop_ours(conn, names):
            raise Refused(
                f"There is a database {names.build} already, and no refresh made it. Rename it or "
                f"drop it; a refresh of {target.name} needs the name."
            )
        # Said now: the swap is hours away.
        if await oid_of(conn, names.kept) is not None:
            raise Refused(
                f"There is a database {names.kept} already, and {target.name}'s own would be "
                "called so after the swap. Rename it or drop it."
            )
        for statement in build_statements(
            here, names.build, mark=_mark("build", here.name, deploy)
        ):
            with postgres.translated(f"making the build database ({statement})"):
                await conn.execute(statement)
        oid = await oid_of(conn, names.build)
        assert oid is not None  # noqa: S101 - for the type checker; it was just made
    return names.built(oid)


def build_statements(here: Database, name: str, *, mark: str) -> list[str]:
    """The SQL that makes a build. Its door opens last: whoever came in earlier would stay."""
    build = quote_ident(name)
    return [
        f"{logical.create_statement(here.row, name, here.owner)} ALLOW_CONNECTIONS false",
        f"COMMENT ON DATABASE {build} IS {quote_literal(mark)}",
        f"REVOKE ALL ON DATABASE {build} FROM PUBLIC",
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {build} TO {quote_ident(here.role)}",
        f"ALTER DATABASE {build} ALLOW_CONNECTIONS true",
    ]


async def _is_empty(target: Target, names: Replacement) -> bool:
    async with server(target) as conn:
        oid = await oid_of(conn, names.build)
    if oid is None or oid != names.build_oid:
        return False
    async with postgres.connect(url_of(target, names.build), purpose="refresh") as conn:
        return bool(await conn.fetchval(postgres.query("refresh_is_empty")))


async def dress(target: Target, names: Replacement) -> None:
    """Give the build database what is set for the one that it will replace."""
    async with ledger.connection(target) as conn:
        here = await read(conn)
    async with server(target) as conn:
        await _set(conn, names.build, here.settings)


async def _set(conn: Conn, database: str, settings: Iterable[Mapping[str, Any]]) -> None:
    for row in settings:
        # Without its value: a setting of the application's own may be a secret.
        setting = row["setting"].partition("=")[0]
        with postgres.translated(f"setting {setting} for the database {database}"):
            for statement in logical.setting_statements(database, [row]):
                await conn.execute(statement)


async def drop_build(target: Target, names: Replacement) -> None:
    """Drop the build database, unless it is the one that serves by now."""
    async with server(target) as conn:
        if not await is_swapped(conn, names):
            await _drop_ours(conn, names)


async def sweep(target: Target, names: Replacement) -> None:
    """Drop what refreshes that died have built; ``alone`` means that no other one lives."""
    async with server(target) as conn:
        for name in await _builds(conn, names.database):
            if name != names.build:
                await _drop(conn, name)
                log.info("leftover build dropped: target=%s database=%s", target.name, name)


async def retain(target: Target, names: Replacement, keep: int) -> tuple[str, ...]:
    """Keep the newest old copies and drop the others. Returns the names of those."""
    gone: list[str] = []
    async with server(target) as conn:
        kept = await _marked(conn, "before", names.database)
        for name, _ in sorted(kept, key=lambda each: -each[1])[keep:]:
            await _drop(conn, name)
            gone.append(name)
            log.info("old copy dropped: target=%s database=%s", target.name, name)
    return tuple(gone)


async def _drop_ours(conn: Conn, names: Replacement) -> bool:
    """Whether the build's name is free afterwards: a database of somebody else's stays."""
    if await oid_of(conn, names.build) is None:
        return True
    if is_ours := names.build in await _builds(conn, names.database):
        await _drop(conn, names.build)
    return is_ours


async def _drop(conn: Conn, name: str) -> None:
    with postgres.translated(f"dropping the database {name}"):
        await conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(name)} WITH (FORCE)")


def _mark(kind: Kind, database: str, deploy: int | str = "") -> str:
    """The comment on a database of ours, and on no other: what it is to which database."""
    return f"airlock: {kind} refresh of {database}, deploy {deploy}"


async def _marked(conn: Conn, kind: Kind, database: str) -> list[tuple[str, int]]:
    """Name and deploy of our databases. Whoever renames one, or its mark, keeps it for himself."""
    rows = await conn.fetch(postgres.query("refresh_marked"), _mark(kind, database))
    found = [(row["name"], int(row["deploy"])) for row in rows if row["deploy"].isdecimal()]
    return [(name, deploy) for name, deploy in found if name == named(kind, database, deploy)]


async def _builds(conn: Conn, database: str) -> list[str]:
    """Builds of ours: with the mark, or cut off before they had it, which nobody ever entered."""
    rows = await conn.fetch(
        "SELECT datname AS name FROM pg_catalog.pg_database AS d"
        " WHERE NOT datallowconn"
        " AND pg_catalog.shobj_description(oid, 'pg_database') IS NULL ORDER BY 1"
    )
    marked = [name for name, _ in await _marked(conn, "build", database)]
    return marked + [row["name"] for row in rows if _is_build(row["name"], database)]


def _is_build(name: str, database: str) -> bool:
    number = name.rpartition("_")[2]
    return number.isdecimal() and name == named("build", database, int(number))


async def oid_of(conn: Conn, name: str) -> int | None:
    """The database of that name now."""
    return await conn.fetchval(
        "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = $1", name
    )


# ---------------------------------------------------------------- the swap


async def is_swapped(conn: Conn, names: Replacement) -> bool:
    """Whether the build serves under the target's name."""
    return names.build_oid is not None and names.build_oid == await oid_of(conn, names.database)


async def old_is_there(conn: Conn, names: Replacement) -> bool:
    """Whether the database from before is kept, so that it can come back."""
    return await oid_of(conn, names.kept) == names.database_oid


async def swap(
    target: Target, here: Database, names: Replacement, *, deploy: int, back: bool = False
) -> None:
    """In one transaction the build takes the place, the grants and the comment of ``here``.

    What serves now is kept as an old copy, which nobody but its owner and this target's role can
    enter.
    back: the old copy takes the place, and what serves now is a build again, to be dropped.
    Raises Transient, with nothing changed, when the sessions in the two could not be ended.
    """
    kind: Kind = "build" if back else "before"
    incoming, outgoing = (names.kept, names.build) if back else (names.build, names.kept)
    oids = names.database_oid, names.build_oid
    comes, goes = oids if back else oids[::-1]
    mark = _mark(kind, here.name, deploy)
    statements = swap_statements(here, incoming=incoming, outgoing=outgoing, mark=mark)
    async with server(target) as conn, server(target) as other:
        await _require_server(conn, here)
        await _require(conn, {incoming: comes, here.name: goes})
        ending = asyncio.create_task(_end_sessions(other, (here.name, incoming)))
        try:
            async with conn.transaction():
                await conn.execute("SET LOCAL lock_timeout = '10s'")
                for statement in statements:
                    await conn.execute(statement)
                # Their locks are ours now: nobody renames another one in between.
                await _require(conn, {here.name: comes, outgoing: goes})
        except asyncpg.ObjectInUseError as error:
            raise Transient(
                f"{here.name} could not be swapped: {postgres.wording(error)}. "
                f"{_why(ending)}Nothing was changed."
            ) from error
        finally:
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError, *postgres.DRIVER_ERRORS):
                await ending
    log.info("Swapped: %s is now %s, %s is now %s", incoming, here.name, here.name, outgoing)


async def _require_server(conn: Conn, here: Database) -> None:
    """Raises Refused on another server, on which an oid is another database."""
    if (found := await _system(conn)) != here.system:
        raise Refused(
            f"The databases would be swapped on server {found}; {here.name} is on {here.system}. "
            "Nothing was changed. Mend refresh.admin_url_env: it leads to another server by now."
        )


async def _require(conn: Conn, expected: Mapping[str, int | None]) -> None:
    """Raises Refused when a name belongs to another database than the refresh wrote down."""
    for name, oid in expected.items():
        if (found := await oid_of(conn, name)) != oid or oid is None:
            raise Refused(
                f"Database {name} has oid {found}; the refresh wrote down {oid}. Somebody renamed "
                "or made it meanwhile, and nothing was changed. Look which database that is."
            )


def swap_statements(here: Database, *, incoming: str, outgoing: str, mark: str) -> list[str]:
    """The SQL of the one transaction."""
    name, gone = here.name, quote_ident(outgoing)
    comment = quote_literal(here.row["comment"]) if here.row["comment"] is not None else "NULL"
    strangers = sorted({row["grantee"] for row in here.grants or ()} - {here.owner, ""})
    # What let the target's role in while nobody else was.
    ours = [here.role] if here.role != here.owner else []
    to_public = [
        {"grantee": "", "privilege": privilege, "grantable": False}
        for privilege in ("CONNECT", "TEMPORARY")
    ]
    return [
        f"ALTER DATABASE {quote_ident(name)} RENAME TO {gone}",
        f"ALTER DATABASE {quote_ident(incoming)} RENAME TO {quote_ident(name)}",
        f"ALTER DATABASE {quote_ident(name)} CONNECTION LIMIT {here.connection_limit}",
        f"COMMENT ON DATABASE {quote_ident(name)} IS {comment}",
        *(f"REVOKE ALL ON DATABASE {quote_ident(name)} FROM {quote_ident(role)}" for role in ours),
        *logical.grant_statements(name, to_public if here.grants is None else here.grants),
        f"REVOKE ALL ON DATABASE {gone} FROM PUBLIC",
        # With what they have granted to others.
        *(f"REVOKE ALL ON DATABASE {gone} FROM {quote_ident(each)} CASCADE" for each in strangers),
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {gone} TO {quote_ident(here.role)}",
        f"COMMENT ON DATABASE {gone} IS {quote_literal(mark)}",
    ]


async def _end_sessions(conn: Conn, databases: Sequence[str]) -> None:
    # Again and again: RENAME waits five seconds for them to be gone, and holds new ones up as soon
    # as it has begun.
    while True:
        await conn.execute(postgres.query("refresh_end_sessions"), list(databases))
        await asyncio.sleep(_END_SESSIONS_S)


def _why(ending: asyncio.Task[None]) -> str:
    error = ending.exception() if ending.done() and not ending.cancelled() else None
    return f"Ending them: {postgres.wording(error)}. " if error else ""
