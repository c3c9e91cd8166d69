"""A snapshot of one database by pg_dump, restored by pg_restore.

On a scratch server that Airlock starts, every role of production is made again (without its
password). In a database of a dev server, the roles that the objects need must be there already.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlock import server
from airlock.binaries import SERVER_TOOLS, Binaries
from airlock.errors import AirlockError, Refused, Transient
from airlock.postgres import (
    CATALOGUE_S,
    Conn,
    connect,
    on_database,
    quote_ident,
    quote_literal,
    translated,
    with_settings,
    within,
)
from airlock.settings import Target
from airlock.snapshot import files, tool
from airlock.snapshot.facts import Facts
from airlock.snapshot.manifest import DATA, Snapshot, new_id

log = logging.getLogger(__name__)

DUMP_TOOLS = ("pg_dump", "pg_restore")
SCRATCH_TOOLS = SERVER_TOOLS
# Not a name that production may have: on managed services "postgres" is no superuser.
SCRATCH_SUPERUSER = "airlock_superuser"
# PostgreSQL keeps these as lists of quoted identifiers; as one literal they would be one name.
_LIST_SETTINGS = frozenset(
    {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}
)
_ROLE_WORDS = (
    "superuser",
    "inherit",
    "createrole",
    "createdb",
    "login",
    "replication",
    "bypassrls",
)
_SCRATCH_SETTINGS: Mapping[str, str] = {
    **server.SCRATCH_SETTINGS,
    "maintenance_work_mem": "64MB",
    "autovacuum": "off",
    "max_logical_replication_workers": "0",
    "cluster_name": "airlock clone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database into which the snapshot was restored."""

    url: str
    superuser_url: str | None
    server_version: str


def dump_command(binaries: Binaries, goal: Path, *, jobs: int) -> list[str]:
    """The argv of pg_dump; its workers share one exported snapshot, so the dump is consistent."""
    return [
        str(binaries.tool("pg_dump")),
        "--format=directory",
        f"--jobs={jobs}",
        "--compress=1",
        "--no-password",
        f"--file={goal}",
    ]


def restore_command(binaries: Binaries, source: Path, *, database: str, jobs: int) -> list[str]:
    """The argv of pg_restore; without --exit-on-error it half-restores."""
    return [
        str(binaries.tool("pg_restore")),
        "--exit-on-error",
        f"--jobs={jobs}",
        "--no-password",
        f"--dbname={database}",
        str(source),
    ]


async def take(
    binaries: Binaries, target: Target, facts: Facts, folder: Path, *, deadline_s: float
) -> str:
    """Dump the database into folder/data. Returns a WAL position not after the dump's."""
    goal = folder / DATA
    await tool.run(
        dump_command(binaries, goal, jobs=target.snapshot.jobs),
        env=tool.environment(target.replication_url),
        produces=goal / "toc.dat",
        deadline_s=deadline_s,
    )
    return facts.wal_lsn


def role_statements(facts: Facts) -> list[str]:
    """SQL that makes production's roles again on an empty server."""
    made: list[str] = []
    for role in facts.roles:
        words = [word.upper() if role[word] else f"NO{word.upper()}" for word in _ROLE_WORDS]
        made.append(f"CREATE ROLE {quote_ident(role['name'])} {' '.join(words)}")
    for row in facts.memberships:
        options = [f"ADMIN {_truth(row['admin'])}"]
        if row["inherit"] is not None:
            options += [f"INHERIT {_truth(row['inherit'])}", f"SET {_truth(row['set'])}"]
        else:
            options = ["ADMIN OPTION"] if row["admin"] else []
        tail = f" WITH {', '.join(options)}" if options else ""
        made.append(f"GRANT {quote_ident(row['role'])} TO {quote_ident(row['member'])}{tail}")
    made += [
        f"ALTER ROLE {quote_ident(row['role'])} SET {_setting(row['setting'])}"
        for row in facts.database_settings
        if row["role"] and not row["in_database"]
    ]
    return made


def database_statements(facts: Facts, name: str, owner: str | None) -> list[str]:
    """SQL that makes the database with production's encoding, locale, settings and grants.

    owner: None leaves it to the role that runs this.
    """
    made = [create_statement(facts.database, name, owner)]
    if (comment := facts.database["comment"]) is not None:
        made.append(f"COMMENT ON DATABASE {quote_ident(name)} IS {quote_literal(comment)}")
    if facts.database["has_grants"]:
        made += grant_statements(name, facts.grants)
    return made + setting_statements(name, facts.database_settings)


def create_statement(database: Mapping[str, Any], name: str, owner: str | None) -> str:
    """SQL that makes an empty database with the encoding and locale of another one."""
    words = [
        f"CREATE DATABASE {quote_ident(name)} TEMPLATE template0",
        f"ENCODING {quote_literal(database['encoding'])}",
        f"LC_COLLATE {quote_literal(database['lc_collate'])}",
        f"LC_CTYPE {quote_literal(database['lc_ctype'])}",
    ]
    if database["locale_provider"] == "i":
        words.append(f"LOCALE_PROVIDER icu ICU_LOCALE {quote_literal(database['locale'])}")
    elif database["locale_provider"] == "b":
        words.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {quote_literal(database['locale'])}")
    if owner is not None:
        words.append(f"OWNER {quote_ident(owner)}")
    return " ".join(words)


def grant_statements(name: str, grants: Iterable[Mapping[str, Any]]) -> list[str]:
    """SQL that gives a database these privileges and no others to PUBLIC."""
    nobody = f"REVOKE ALL ON DATABASE {quote_ident(name)} FROM PUBLIC"
    return [nobody, *(_grant(name, row) for row in grants)]


def setting_statements(name: str, settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """SQL for what is set for a database, and for roles in it."""
    made: list[str] = []
    for row in settings:
        if row["in_database"]:
            whose = f"ROLE {quote_ident(row['role'])} IN " if row["role"] else ""
            made.append(f"ALTER {whose}DATABASE {quote_ident(name)} SET {_setting(row['setting'])}")
    return made


def _grant(database: str, row: Mapping[str, Any]) -> str:
    grantee = quote_ident(row["grantee"]) if row["grantee"] else "PUBLIC"
    option = " WITH GRANT OPTION" if row["grantable"] else ""
    return f"GRANT {row['privilege']} ON DATABASE {quote_ident(database)} TO {grantee}{option}"


def _truth(value: object) -> str:
    return "TRUE" if value else "FALSE"


def _setting(text: str) -> str:
    name, _, value = text.partition("=")
    shown = value if name in _LIST_SETTINGS and value else quote_literal(value)
    return f"{quote_ident(*name.split('.'))} TO {shown}"


# --- on a scratch server ---------------------------------------------------------------------


@asynccontextmanager
async def on_scratch_server(
    binaries: Binaries, snapshot: Snapshot, facts: Facts, target: Target, folder: Path
) -> AsyncGenerator[Restored]:
    """The snapshot restored on a server of our own, which ends afterwards."""
    data_dir = folder / "data"
    await _empty_cluster(binaries, target.state_dir / "templates", data_dir)
    wanted = {"wal_level": facts.settings.get("wal_level", "replica")}
    async with server.running(
        binaries, data_dir, settings={**_SCRATCH_SETTINGS, **wanted}, superuser=SCRATCH_SUPERUSER
    ) as scratch:
        statements = role_statements(facts)
        if facts.name == "postgres":
            statements.append("DROP DATABASE postgres")
        statements += database_statements(facts, facts.name, facts.database["owner"])
        await _execute(scratch.url("template1"), statements)
        url = scratch.url(facts.name)
        await _restore(binaries, snapshot, url, facts.name, target.snapshot.jobs)
        yield Restored(
            url=scratch.url(facts.name, facts.role),
            superuser_url=url,
            server_version=binaries.version,
        )


async def _empty_cluster(binaries: Binaries, templates: Path, data_dir: Path) -> None:
    """A cluster as initdb makes it, copied from one that is kept: initdb takes a second."""
    template = templates / f"pg{re.sub(r'[^0-9A-Za-z.]', '_', binaries.version)}"
    if not (template / "PG_VERSION").is_file():
        made = templates / f".tmp-{new_id()}"
        with files.owned(made):
            try:
                await server.initdb(binaries, made, superuser=SCRATCH_SUPERUSER)
                if not template.exists():
                    made.rename(template)
            finally:
                files.remove_tree(made)

    def copy(_: threading.Event) -> None:
        shutil.copytree(template, data_dir)

    await files.in_thread(copy)


# --- in a database of the dev server -----------------------------------------------------------


@asynccontextmanager
async def on_dev_server(
    binaries: Binaries, snapshot: Snapshot, facts: Facts, target: Target, name: str, dev_url: str
) -> AsyncGenerator[Restored]:
    """The snapshot restored into a database of the dev server, dropped afterwards."""
    database = dev_database(target.name, name)
    async with connect(dev_url, purpose=f"clone {target.name}", limit_s=CATALOGUE_S) as keeper:
        await sweep_dev_server(keeper, target.name)
        # While this session lives, nobody takes the database for a dead run's leftover.
        if not await _claim(keeper, database):
            raise Refused(f"The clone {database} is in use by another run. Wait for it.")
        await refuse_dev_server(keeper, facts)
        dev = await keeper.fetchrow(
            "SELECT current_user AS role, pg_catalog.current_setting('server_version') AS version,"
            " (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser"
        )
        assert dev is not None  # noqa: S101 - for the type checker; SELECT without FROM has a row
        try:
            await _drop(keeper, database)
            owner = facts.database["owner"]
            await _execute(dev_url, database_statements(facts, database, owner))
            await _execute(dev_url, [_mark(target.name, database)])
            url = on_database(dev_url, database)
            await _restore(binaries, snapshot, url, database, target.snapshot.jobs)
            yield Restored(
                url=url if dev["role"] == facts.role else _as_role(url, facts.role),
                superuser_url=url if dev["superuser"] else None,
                server_version=dev["version"],
            )
        finally:
            await _drop_whatever_happens(dev_url, keeper, database)


def dev_database(target: str, name: str) -> str:
    """The name of the clone's database; PostgreSQL cuts names at 63 bytes."""
    return f"airlock_{target}_{name}".encode()[:63].decode(errors="ignore")


async def refuse_dev_server(conn: Conn, facts: Facts) -> None:
    """Raises Refused naming what the dev server lacks, before any work."""
    major = conn.get_server_version().major
    if major < facts.server_major:
        raise Refused(
            f"The dev server is PostgreSQL {major}, production is {facts.server_major}. "
            "Rehearse on the same version; upgrade the dev server or remove clone.dev_url_env."
        )
    rows = await conn.fetch("SELECT name FROM pg_catalog.pg_available_extensions")
    _refuse_extensions(facts, {row["name"] for row in rows}, "the dev server")
    wanted = sorted({*facts.needed_roles, facts.role, facts.database["owner"]})
    rows = await conn.fetch(
        "SELECT rolname AS name, pg_catalog.pg_has_role(oid, 'MEMBER') AS member "
        "FROM pg_catalog.pg_roles WHERE rolname = ANY($1)",
        wanted,
    )
    known = {row["name"]: row["member"] for row in rows}
    lacking = [name for name in wanted if name not in known]
    if lacking:
        made = "; ".join(f"CREATE ROLE {quote_ident(name)} LOGIN" for name in lacking)
        raise Refused(
            f"The dev server lacks roles that production's objects belong to: {', '.join(lacking)}."
            f" Create them there ({made}), or remove clone.dev_url_env to use a scratch server."
        )
    if foreign := [name for name in wanted if not known[name]]:
        raise Refused(
            f"The role of clone.dev_url_env is not a member of {', '.join(foreign)}, so it cannot "
            "make what belongs to them. Grant it these roles, or use a superuser of the dev server."
        )


def refuse_scratch_server(binaries: Binaries, facts: Facts) -> None:
    """Raises Refused naming the extensions that a server of these binaries would lack."""
    available = binaries.extensions()
    if available is not None:
        _refuse_extensions(
            facts, available, f"PostgreSQL {binaries.version} in {binaries.directory}"
        )


def _refuse_extensions(facts: Facts, available: Iterable[str], where: str) -> None:
    if lacking := sorted(set(facts.extensions) - set(available)):
        raise Refused(
            f"Production uses extensions that {where} does not have: {', '.join(lacking)}. "
            "Install them there, or name other PostgreSQL programs in PG_BIN or another "
            "clone.dev_url_env."
        )


async def sweep_dev_server(conn: Conn, target: str) -> tuple[str, ...]:
    """Drop the target's clones whose run is dead. Returns their names."""
    rows = await conn.fetch(
        "SELECT d.datname AS name FROM pg_catalog.pg_database AS d "
        "WHERE pg_catalog.shobj_description(d.oid, 'pg_database') = $1 ORDER BY 1",
        _marker(target),
    )
    gone: list[str] = []
    for row in rows:
        if await _claim(conn, row["name"]):
            await _drop(conn, row["name"])
            await conn.execute("SELECT pg_catalog.pg_advisory_unlock_all()")
            gone.append(row["name"])
            log.info("leftover clone dropped: database=%s", row["name"])
    return tuple(gone)


def _marker(target: str) -> str:
    return f"airlock clone of target {target}; dropped when its run ends"


def _mark(target: str, database: str) -> str:
    return f"COMMENT ON DATABASE {quote_ident(database)} IS {quote_literal(_marker(target))}"


async def _claim(conn: Conn, database: str) -> bool:
    return bool(
        await conn.fetchval(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
            f"airlock clone {database}",
        )
    )


async def _drop(conn: Conn, database: str) -> None:
    with translated(f"dropping the clone {database}"), within(conn, CATALOGUE_S):
        await conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)} WITH (FORCE)")


async def _drop_whatever_happens(dev_url: str, keeper: Conn, database: str) -> None:
    async def drop() -> None:
        if not keeper.is_closed():
            await _drop(keeper, database)
            return
        async with connect(dev_url, purpose="clone sweep", limit_s=CATALOGUE_S) as conn:
            await _drop(conn, database)

    try:
        await files.finished(drop())
    except AirlockError as error:
        # The next run sweeps it; the error that brought us here matters more.
        log.warning("clone left behind: database=%s reason=%s", database, error)


def _as_role(url: str, role: str) -> str:
    """The same login, working as the role from its first statement on."""
    return with_settings(url, {"role": role})


# --- both ------------------------------------------------------------------------------------


async def _execute(url: str, statements: list[str]) -> None:
    # CREATE DATABASE waits for a checkpoint.
    async with connect(url, purpose="clone", limit_s=CATALOGUE_S) as conn:
        for statement in statements:
            with translated(f"making the clone ({statement})"):
                await conn.execute(statement)


async def _restore(
    binaries: Binaries, snapshot: Snapshot, url: str, database: str, jobs: int
) -> None:
    try:
        await tool.run(
            restore_command(binaries, snapshot.path / DATA, database=database, jobs=jobs),
            env=tool.environment(url),
        )
    except Transient as error:
        raise Refused(
            f"The snapshot {snapshot.id} could not be restored: {error} "
            "Production was not touched; mend the clone's server, or take a new snapshot."
        ) from error
