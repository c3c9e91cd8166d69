"""A snapshot of the whole cluster by pg_basebackup; its copy starts as the clone at once."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from airlock import dsn, server
from airlock.binaries import Binaries
from airlock.errors import Refused, Transient
from airlock.postgres import connect
from airlock.server import Server
from airlock.settings import Target
from airlock.snapshot import files, tool
from airlock.snapshot.facts import Facts
from airlock.snapshot.manifest import DATA, FileEntry, Snapshot

log = logging.getLogger(__name__)

TOOLS = ("postgres", "pg_basebackup")
# They act on their own in a copy: run scheduled jobs, write to other servers.
ACTING_LIBRARIES = frozenset({"pg_cron", "pg_partman_bgw", "pglogical", "bdr", "pg_net"})
_BASEBACKUP_MANIFEST = "backup_manifest"


def command(binaries: Binaries, goal: Path, *, checksums: str) -> list[str]:
    """The argv of pg_basebackup; the connection is in its environment.

    The server verifies page checksums while it reads; ours to sync, in parallel, with the hashing.
    """
    return [
        str(binaries.tool("pg_basebackup")),
        f"--pgdata={goal}",
        "--format=plain",
        "--checkpoint=fast",
        "--wal-method=stream",
        f"--manifest-checksums={checksums}",
        "--label=airlock snapshot",
        "--no-password",
        "--no-sync",
    ]


def why_not(facts: Facts) -> str | None:
    """What stands against a physical snapshot, before anything is tried."""
    if not facts.backup_role_may_replicate:
        return f"role {facts.backup_role} has no REPLICATION privilege"
    if facts.wal_level == "minimal" or facts.max_wal_senders < 2:
        return (
            f"the server has wal_level {facts.wal_level} and "
            f"max_wal_senders {facts.max_wal_senders}; replica and 2 or more are needed"
        )
    if facts.is_standby:
        return "the server is a standby"
    if facts.tablespaces:
        return f"the server has tablespaces ({', '.join(facts.tablespaces)})"
    return None


async def why_no_connection(url: str) -> str | None:
    """What pg_hba.conf and the server say to a replication connection: tried, not guessed."""
    made = dsn.resolve(url, os.environ)
    try:
        conn = await asyncpg.connect(**dsn.for_asyncpg(made, {"replication": "true"}), timeout=10)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return f"a replication connection was refused: {error}"
    conn.terminate()
    return None


async def take(
    binaries: Binaries, target: Target, facts: Facts, folder: Path, *, deadline_s: float
) -> str:
    """Back the cluster up into folder/data. Returns the WAL position it reaches."""
    # PostgreSQL's own SHA-256, used in builds without OpenSSL, is three times slower than the disk.
    checksums = "SHA256" if facts.ssl_library else "CRC32C"
    goal = folder / DATA
    await tool.run(
        command(binaries, goal, checksums=checksums),
        env=tool.environment(target.replication_url),
        produces=goal / _BASEBACKUP_MANIFEST,
        deadline_s=deadline_s,
    )
    return str(_servers_manifest(folder)["WAL-Ranges"][-1]["End-LSN"])


def check_arrived(folder: Path, entries: tuple[FileEntry, ...]) -> None:
    """What lies on our disk is what the server says it sent. Raises Transient naming a file."""
    ours = {entry.path.removeprefix(f"{DATA}/"): entry for entry in entries}
    for sent in _servers_manifest(folder)["Files"]:
        name = sent.get("Path") or bytes.fromhex(sent["Encoded-Path"]).decode(
            errors="surrogateescape"
        )
        entry = ours.get(name)
        if entry is None or entry.size_bytes != sent["Size"]:
            raise Transient(
                f"{name} did not arrive whole from the server. Take the snapshot again."
            )
        if sent.get("Checksum-Algorithm") == "SHA256" and sent["Checksum"] != entry.sha256:
            raise Transient(f"{name} was changed on its way to the disk. Take the snapshot again.")


def _servers_manifest(folder: Path) -> dict[str, Any]:
    text = (folder / DATA / _BASEBACKUP_MANIFEST).read_text(encoding="utf-8")
    return json.loads(text)


@asynccontextmanager
async def started(
    binaries: Binaries,
    snapshot: Snapshot,
    facts: Facts,
    entries: tuple[FileEntry, ...],
    folder: Path,
    *,
    workers: int,
) -> AsyncGenerator[Server]:
    """A server on a copy of the snapshot, with nothing of production's configuration."""
    data_dir = folder / DATA
    # Over the snapshot where the kernel can: nothing is copied but what the clone opens.
    over = snapshot.path / DATA if server.can_overlay(folder.parent) else None

    def prepare(stop: threading.Event) -> None:
        if over is None:
            files.copy(snapshot.path, DATA, data_dir, entries, workers=workers, stop=stop)
        isolate(data_dir if over is None else server.upper(data_dir))

    await files.in_thread(prepare)
    async with server.running(
        binaries,
        data_dir,
        settings=settings(facts, present_libraries(binaries, facts.libraries)),
        superuser=facts.bootstrap_superuser,
        timeout_s=600,
        over=over,
    ) as clone:
        await _refuse_another_cluster(clone, snapshot)
        yield clone


def isolate(data_dir: Path) -> None:
    """Replace every configuration file of the copy: it must not reach, or be reached."""
    own = {
        "postgresql.conf": "# A clone made by Airlock; its settings are on its command line.\n",
        "postgresql.auto.conf": "",
        "pg_hba.conf": "local all all trust\n",
        "pg_ident.conf": "",
    }
    data_dir.mkdir(mode=0o700, exist_ok=True)
    for name, text in own.items():
        path = data_dir / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)


def settings(facts: Facts, libraries: tuple[str, ...]) -> dict[str, str]:
    """The clone's settings: production's where a migration could tell, ours for all else."""
    return {
        **facts.settings,
        "fsync": "off",
        "synchronous_commit": "off",
        "shared_buffers": "64MB",
        "maintenance_work_mem": "64MB",
        "max_connections": "40",
        "max_wal_size": "4GB",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "synchronous_standby_names": "",
        "shared_preload_libraries": ",".join(libraries),
        # A copy of a subscriber would otherwise take its publisher's changes away.
        "max_logical_replication_workers": "0",
        "cluster_name": "airlock clone",
    }


def present_libraries(binaries: Binaries, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Which of production's preloaded libraries the clone can and may load."""
    folder = binaries.library_dir()
    return tuple(
        name
        for name in wanted
        if Path(name).name not in ACTING_LIBRARIES
        and folder is not None
        and (folder / f"{Path(name).name}.so").is_file()
    )


async def _refuse_another_cluster(clone: Server, snapshot: Snapshot) -> None:
    async with connect(clone.url(snapshot.database), purpose="clone check") as conn:
        found = await conn.fetchval(
            "SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"
        )
    if found != snapshot.system_identifier:
        raise Refused(
            f"The clone of {snapshot.id} has system identifier {found}, expected production's "
            f"{snapshot.system_identifier}. Take a new snapshot."
        )
