"""Production's PostgreSQL: brought to 009 by Airlock and filled, once; copied from then on."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from airlock import binaries, server
from airlock import deploy as steps
from airlock.binaries import Binaries
from airlock.errors import Broken
from airlock.postgres import Conn, connect, quote_literal
from airlock.request import DeployRequest
from airlock.server import Server
from examples.ma_tracker import load_data
from examples.ma_tracker.demo.show import Checklist

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".airlock" / "cache"
DATABASE = "tracker"
OWNER = "tracker_owner"
BACKUP = "tracker_backup"
HEAD = 9
DEALS = 40_000
ROWS_AT_LEAST = 200_000

# As a small production server has them; fsync and full_page_writes stay on.
SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "min_wal_size": "32MB",
}
# While it is filled nobody's data is at risk: what is lost is made again.
FILLING = {**server.SCRATCH_SETTINGS, **SETTINGS, "autovacuum": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """The running server. The passwords are new in each demo."""

    server: Server
    url: str
    backup_url: str
    rows: int


class Secrets:
    """The env file that the target reads its addresses from; only its owner may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, str] = {}

    def write(self, **variables: str) -> None:
        """Set these variables and keep the others."""
        self._lines |= variables
        self.path.touch(mode=0o600)
        text = "".join(f"{name}='{value}'\n" for name, value in self._lines.items())
        self.path.write_text(text, encoding="utf-8")


async def start(
    stack: AsyncExitStack, data_dir: Path, env: Secrets, checklist: Checklist
) -> Production:
    """Production at 009 with its rows, listening on a free loopback port; ended with the stack."""
    found = binaries.find()
    kept = _kept(found)
    if not kept.is_dir():
        await _prepare(found, data_dir, env, checklist)
        with checklist.step("keeping a copy for the next demo"):
            await asyncio.to_thread(_keep, data_dir, kept)
    else:
        with checklist.step("production at 009, as an earlier demo made it: copying"):
            await asyncio.to_thread(shutil.copytree, kept, data_dir)
    with checklist.step(f"starting PostgreSQL {found.version} ({found.source})") as step:
        pg = await stack.enter_async_context(
            server.running(found, data_dir, port=0, settings=SETTINGS)
        )
        made = await _opened(pg, env)
        step.note = f"{made.rows:,} rows"
    return made


async def _opened(pg: Server, env: Secrets) -> Production:
    passwords = {role: secrets.token_urlsafe(18) for role in (OWNER, BACKUP)}
    async with connect(pg.url(DATABASE), pinned=False) as superuser:
        for role, password in passwords.items():
            await superuser.execute(f"ALTER ROLE {role} PASSWORD {quote_literal(password)}")
        rows = await _count(superuser)
    if rows < ROWS_AT_LEAST:
        raise Broken(
            f"Production has {rows:,} rows, and the demo is meant to have {ROWS_AT_LEAST:,}. "
            f"Remove {CACHE.relative_to(ROOT)} and start again."
        )
    url, backup_url = (pg.tcp_url(DATABASE, role, passwords[role]) for role in (OWNER, BACKUP))
    env.write(PROD_DATABASE_URL=url, PROD_REPLICATION_URL=backup_url, DATABASE_URL=url)
    return Production(server=pg, url=url, backup_url=backup_url, rows=rows)


async def _count(conn: Conn) -> int:
    tables = await conn.fetch(
        "SELECT c.oid::pg_catalog.regclass::text AS name FROM pg_catalog.pg_class AS c"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::pg_catalog.regnamespace"
    )
    # regclass writes its names quoted.
    counts = [await conn.fetchval(f"SELECT count(*) FROM {row['name']}") for row in tables]  # noqa: S608
    return sum(counts)


# ---------------------------------------------------------------- the first time


async def _prepare(found: Binaries, data_dir: Path, env: Secrets, checklist: Checklist) -> None:
    with checklist.step("making a PostgreSQL cluster"):
        await server.initdb(found, data_dir)
    async with server.running(found, data_dir, settings=FILLING) as pg:
        await _make_database(pg)
        env.write(
            PROD_DATABASE_URL=pg.url(DATABASE, OWNER), PROD_REPLICATION_URL=pg.url(DATABASE, BACKUP)
        )
        with checklist.step("bringing production to 009, by a deploy of its own"):
            await _bring_to_head()
        with checklist.step("loading the tracker's data") as step:
            async with connect(pg.url(DATABASE, OWNER), pinned=False) as conn:
                loaded = await load_data.load(conn, deals=DEALS)
            async with connect(pg.url(DATABASE), pinned=False) as superuser:
                await superuser.execute("VACUUM (FREEZE, ANALYZE)")
            step.note = f"{loaded.total:,} rows"


async def _make_database(pg: Server) -> None:
    async with connect(pg.url(), pinned=False) as superuser:
        await superuser.execute(f"CREATE ROLE {OWNER} LOGIN")
        await superuser.execute(f"CREATE ROLE {BACKUP} LOGIN REPLICATION")
        await superuser.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    async with connect(pg.url(DATABASE), pinned=False) as superuser:
        await superuser.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")


async def _bring_to_head() -> None:
    """A deploy of the empty database, before there is a service: all steps but the service's."""
    request = DeployRequest(
        target="prod", up_to=HEAD, requester="make demo", reason="what was there before"
    )
    lease = await steps.open_deploy(request)
    if lease is None:
        raise Broken("The new database has nothing to migrate; expected were 001 to 009.")
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    await steps.apply_plan(lease)
    await steps.verify_schema(lease)
    await steps.succeed(lease)


# ---------------------------------------------------------------- the copy


def _kept(found: Binaries) -> Path:
    """Where the copy for these very sources and this PostgreSQL is, or will be."""
    ours = hashlib.sha256(found.version.encode())
    sources = [
        *(ROOT / "airlock").rglob("*.py"),
        *(ROOT / "airlock").rglob("*.sql"),
        *sorted((ROOT / "migrations").glob("*.sql"))[:HEAD],
        Path(load_data.__file__),
        Path(__file__),
    ]
    for path in sorted(sources):
        ours.update(path.read_bytes())
    return CACHE / f"demo-{ours.hexdigest()[:16]}"


def _keep(data_dir: Path, kept: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    for older in CACHE.glob("demo-*"):
        shutil.rmtree(older, ignore_errors=True)
    unfinished = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")
    shutil.copytree(data_dir, unfinished)
    unfinished.rename(kept)
