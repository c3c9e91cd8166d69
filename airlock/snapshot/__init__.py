"""Backups of a target, proved by restoring them: take, verify, restore, retain.

A snapshot is a folder ``<state_dir>/<target>/snapshots/<id>``: manifest.json (what it is, every
file with size and SHA-256), restore.json (what a clone needs to know), and data/.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from airlock import binaries, dsn
from airlock.binaries import Binaries
from airlock.errors import Refused
from airlock.postgres import connect, translated
from airlock.settings import Target
from airlock.snapshot import facts as snapshot_facts
from airlock.snapshot import files, logical, manifest, physical, tool
from airlock.snapshot.facts import Facts
from airlock.snapshot.manifest import MANIFEST, RESTORE, ProviderName, Snapshot

__all__ = [
    "Choice",
    "Clone",
    "Snapshot",
    "check_origin",
    "check_restorable",
    "list_snapshots",
    "restore",
    "retain",
    "take",
    "verify",
]

log = logging.getLogger(__name__)

_TMP = ".tmp-"
_GONE = ".gone-"
# Two WAL segments, the template, the manifest.
_SPARE_BYTES = 128 * 2**20
# Snapshots that this process took or verified: their files need no second hashing while nobody
# writes them.
_hashed: dict[str, files.Stamps] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A copy of production made from a snapshot; it lives as long as its ``restore`` block."""

    url: str
    superuser_url: str | None
    name: str
    database: str
    provider: ProviderName
    server_version: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which provider, with which programs, and why."""

    provider: ProviderName
    reason: str
    binaries: Binaries


async def check_restorable(target: Target) -> Choice:
    """How the target would be backed up and restored, without doing it.

    Raises Refused when programs, roles, extensions, privileges or disk space are lacking.
    """
    return await _check(target, await snapshot_facts.read(target))


async def take(
    target: Target, *, head: str | None, deadline_s: float = tool.DEADLINE_S
) -> Snapshot:
    """Back the target up. It has its final name only when it is whole and on the disk.

    head: the newest migration applied, for the manifest.
    Raises Refused before any work when something is lacking, Transient when a tool fails.
    """
    began = time.monotonic()
    facts = await snapshot_facts.read(target)
    choice = await _check(target, facts)
    name = manifest.new_id()
    folder = target.snapshots_dir / f"{_TMP}{name}"
    with files.worded(f"taking a snapshot of {target.name}"), files.owned(folder):
        sweep(target)
        try:
            folder.mkdir(mode=0o700)
            written = await _write(target, facts, choice, folder, head, began, deadline_s)
            folder.rename(target.snapshots_dir / name)
            manifest.sync_folder(target.snapshots_dir)
        finally:
            files.remove_tree(folder)
    snapshot = replace(written, path=target.snapshots_dir / name)
    log.info(
        "snapshot taken: target=%s id=%s provider=%s bytes=%s seconds=%.1f",
        target.name, snapshot.id, snapshot.provider, snapshot.size_bytes, snapshot.seconds,
    )  # fmt: skip
    return snapshot


async def _write(
    target: Target,
    facts: Facts,
    choice: Choice,
    folder: Path,
    head: str | None,
    began: float,
    deadline_s: float,
) -> Snapshot:
    created_at = datetime.now(UTC)
    provider = physical if choice.provider == "physical" else logical
    manifest.write_json(folder / RESTORE, facts.to_json())
    wal_lsn = await provider.take(choice.binaries, target, facts, folder, deadline_s=deadline_s)

    def seal(stop: threading.Event) -> tuple[files.Stamps, tuple[manifest.FileEntry, ...]]:
        files.make_private(folder)
        # Before the hashing: what is written during it must show.
        return files.stamps(folder), files.seal(folder, target.snapshot.jobs, stop)

    stamps, entries = await files.in_thread(seal)
    if choice.provider == "physical":
        physical.check_arrived(folder, entries)
    unsigned = Snapshot(
        id=folder.name.removeprefix(_TMP),
        provider=choice.provider,
        provider_reason=choice.reason,
        path=folder,
        target=target.name,
        database=facts.name,
        created_at=created_at,
        seconds=round(time.monotonic() - began, 3),
        size_bytes=sum(entry.size_bytes for entry in entries),
        sha256="",
        wal_lsn=wal_lsn,
        system_identifier=facts.system_identifier,
        server_version=facts.server_version,
        tool_version=choice.binaries.version,
        migration_head=head,
    )
    signed = replace(unsigned, sha256=manifest.digest(unsigned.to_json(), entries))
    manifest.write(folder, signed, entries)
    _hashed[signed.sha256] = stamps
    return signed


async def verify(snapshot: Snapshot, *, workers: int = 2) -> None:
    """Every file is as it was when it was taken. Raises Refused naming one that is not."""
    entries = _entries(snapshot)

    def check(stop: threading.Event) -> files.Stamps:
        # Before the hashing: what is written during it must show.
        stamps = files.stamps(snapshot.path)
        files.check(snapshot.path, entries, workers, stop)
        return stamps

    with files.worded(f"checking the snapshot {snapshot.id}"):
        _hashed[snapshot.sha256] = await files.in_thread(check)


async def check_origin(snapshot: Snapshot, target: Target, *, head: str | None) -> None:
    """Raises Refused unless the snapshot is of the target's database as a plan found it.

    head: the newest migration that the plan found applied.
    """
    async with connect(target.database_url, purpose="snapshot") as conn:
        with translated(f"looking which server {target.name} is on"):
            here = await conn.fetchrow(
                "SELECT system_identifier::pg_catalog.text AS system,"
                " pg_catalog.current_database() AS database FROM pg_catalog.pg_control_system()"
            )
    assert here is not None  # noqa: S101 - for the type checker; the function has one row
    for what, found, expected in (
        ("target", snapshot.target, target.name),
        ("system identifier", snapshot.system_identifier, here["system"]),
        ("database", snapshot.database, here["database"]),
        ("newest migration", snapshot.migration_head or "none", head or "none"),
    ):
        if found != expected:
            raise Refused(
                f"Snapshot {snapshot.id} is not of what would be deployed to: its {what} is "
                f"{found}, expected {expected}. Nothing was changed. Check "
                f"{target.database_url_env}, then start again: airlock deploy {target.name}"
            )


@asynccontextmanager
async def restore(snapshot: Snapshot, target: Target, *, name: str) -> AsyncGenerator[Clone]:
    """A clone of production from the snapshot, gone when the block ends.

    name: unique among the target's living clones; letters, digits, "-" and "_".
    Raises Refused when the snapshot is damaged or cannot be restored here.
    """
    given = False
    try:
        async with _clone(snapshot, target, name) as clone:
            given = True
            yield clone
    except OSError as error:
        if given:
            raise  # what the block met is no matter of ours
        raise files.in_words(error, f"restoring the snapshot {snapshot.id}") from error


@asynccontextmanager
async def _clone(snapshot: Snapshot, target: Target, name: str) -> AsyncGenerator[Clone]:
    began = time.monotonic()
    sweep(target)
    with ExitStack() as stack:
        stack.enter_context(files.shared(snapshot.path / MANIFEST))
        entries = await _checked(snapshot, target.snapshot.jobs)
        folder = stack.enter_context(files.owned(target.clones_dir / name))
        files.remove_tree(folder)
        stack.callback(files.remove_tree, folder)
        folder.mkdir(mode=0o700)
        async with _restored(snapshot, target, entries, name, folder) as (facts, restored):
            clone = Clone(
                url=restored.url,
                superuser_url=restored.superuser_url,
                name=name,
                database=facts.name,
                provider=snapshot.provider,
                server_version=restored.server_version,
                seconds=round(time.monotonic() - began, 3),
            )
            log.info(
                "clone ready: snapshot=%s name=%s seconds=%.1f", snapshot.id, name, clone.seconds
            )
            yield clone


@asynccontextmanager
async def _restored(
    snapshot: Snapshot,
    target: Target,
    entries: tuple[manifest.FileEntry, ...],
    name: str,
    folder: Path,
) -> AsyncGenerator[tuple[Facts, logical.Restored]]:
    if snapshot.provider == "physical":
        facts = _read_facts(snapshot)
        found = binaries.find(major=facts.server_major, need=physical.TOOLS)
        async with physical.started(
            found, snapshot, facts, entries, folder, workers=target.snapshot.jobs
        ) as clone:
            yield (
                facts,
                logical.Restored(
                    url=clone.url(facts.name, facts.role),
                    superuser_url=clone.url(facts.name),
                    server_version=found.version,
                ),
            )
        return
    facts = _read_facts(snapshot)
    dev_url = _dev_url(target)
    found = _logical_binaries(target, facts, tls=_needs_tls(dev_url))
    if dev_url is None:
        logical.refuse_scratch_server(found, facts)
        on = logical.on_scratch_server(found, snapshot, facts, target, folder)
    else:
        on = logical.on_dev_server(found, snapshot, facts, target, name, dev_url)
    async with on as restored:
        yield facts, restored


def list_snapshots(target: Target) -> tuple[Snapshot, ...]:
    """The target's snapshots, newest first; one with a damaged manifest is left out."""
    found: list[Snapshot] = []
    for folder in sorted(target.snapshots_dir.glob("[0-9]*"), reverse=True):
        if folder.is_dir():
            try:
                found.append(manifest.read(folder)[0])
            except Refused as error:
                log.warning("snapshot passed over: %s", error)
    return tuple(found)


async def retain(target: Target) -> tuple[str, ...]:
    """Keep the newest ``keep``, and older ones while fewer than ``keep_min`` are verified.

    Returns the ids removed. A snapshot that is being restored stays.
    """
    found = list_snapshots(target)
    policy = target.snapshot
    if len(found) <= policy.keep:
        return ()
    verified = 0
    for snapshot in found[: policy.keep]:
        verified += verified < policy.keep_min and await _is_whole(snapshot, policy.jobs)
    removed: list[str] = []
    for snapshot in found[policy.keep :]:
        if verified < policy.keep_min and await _is_whole(snapshot, policy.jobs):
            verified += 1
        elif _remove(snapshot):
            removed.append(snapshot.id)
    return tuple(removed)


async def _is_whole(snapshot: Snapshot, workers: int) -> bool:
    try:
        await verify(snapshot, workers=workers)
    except Refused as error:
        log.warning("snapshot not counted: %s", error)
        return False
    return True


def _remove(snapshot: Snapshot) -> bool:
    with files.exclusively(snapshot.path / MANIFEST) as ours:
        if not ours:
            return False
        # Under its own name it is whole or not there.
        gone = snapshot.path.with_name(f"{_GONE}{snapshot.id}")
        snapshot.path.rename(gone)
    files.remove_tree(gone)
    log.info("snapshot removed: target=%s id=%s", snapshot.target, snapshot.id)
    return True


def sweep(target: Target) -> tuple[str, ...]:
    """Remove what dead runs left: half snapshots, clones. Never touches a living run's."""
    removed = files.sweep(target.snapshots_dir, f"{_TMP}*", files.remove_tree)
    removed += files.sweep(target.snapshots_dir, f"{_GONE}*", files.remove_tree)
    removed += files.sweep(target.clones_dir, "[!.]*", files.remove_tree)
    removed += files.sweep(target.state_dir / "templates", f"{_TMP}*", files.remove_tree)
    for name in removed:
        log.info("leftover removed: target=%s name=%s", target.name, name)
    return removed


def _entries(snapshot: Snapshot) -> tuple[manifest.FileEntry, ...]:
    there, entries = manifest.read(snapshot.path)
    if there.sha256 != snapshot.sha256:
        raise Refused(
            f"{snapshot.path / MANIFEST} was replaced: its SHA-256 is {there.sha256[:12]}, "
            f"expected {snapshot.sha256[:12]}. Do not restore from it; take a new snapshot."
        )
    files.check_names(snapshot.path, entries)
    return entries


async def _checked(snapshot: Snapshot, workers: int) -> tuple[manifest.FileEntry, ...]:
    entries = _entries(snapshot)
    if _hashed.get(snapshot.sha256) != files.stamps(snapshot.path):
        await verify(snapshot, workers=workers)
    return entries


def _read_facts(snapshot: Snapshot) -> Facts:
    return Facts.from_json(json.loads((snapshot.path / RESTORE).read_text(encoding="utf-8")))


# --- before any work ---------------------------------------------------------------------------


async def _check(target: Target, facts: Facts) -> Choice:
    choice = await _choose(target, facts)
    if choice.provider == "logical":
        await _refuse_logical(target, facts, choice.binaries)
    else:
        logical.refuse_scratch_server(choice.binaries, facts)
    _refuse_full_disk(target, facts, choice.provider)
    return choice


async def _choose(target: Target, facts: Facts) -> Choice:
    wanted = target.snapshot.provider
    tls = _needs_tls(target.replication_url, _dev_url(target))
    if wanted == "logical":
        found = _logical_binaries(target, facts, tls=tls)
        return Choice(provider="logical", reason="airlock.toml asks for it", binaries=found)
    reason = physical.why_not(facts)
    if reason is None and wanted == "auto" and target.clone.dev_url_env is not None:
        reason = "the clone is a database of a dev server, which takes a dump only"
    if reason is None:
        reason = await physical.why_no_connection(target.replication_url)
    found = None
    if reason is None:
        try:
            found = binaries.find(major=facts.server_major, need=physical.TOOLS, tls=tls)
            if wanted == "auto":
                logical.refuse_scratch_server(found, facts)
        except Refused as error:
            reason = str(error)
    if found is not None and reason is None:
        said = (
            "airlock.toml asks for it"
            if wanted == "physical"
            else (f"role {facts.backup_role} may take base backups; PostgreSQL {found.version}")
        )
        return Choice(provider="physical", reason=said, binaries=found)
    if wanted == "physical":
        raise Refused(
            f"Target {target.name} asks for physical snapshots, and {reason}. "
            'Mend that, or set snapshot.provider to "auto" or "logical".'
        )
    found = _logical_binaries(target, facts, tls=tls)
    return Choice(provider="logical", reason=f"not physical: {reason}", binaries=found)


def _logical_binaries(target: Target, facts: Facts, *, tls: bool) -> Binaries:
    """The server's own version where there is one: a newer one's dump may not fit it."""
    need = logical.SCRATCH_TOOLS if target.clone.dev_url_env is None else logical.DUMP_TOOLS
    with suppress(Refused):
        return binaries.find(major=facts.server_major, need=need, tls=tls)
    return binaries.find(at_least=facts.server_major, need=need, tls=tls)


def _needs_tls(*urls: str | None) -> bool:
    """Whether one of these servers is reached over TLS only."""
    return any(dsn.needs_tls(dsn.resolve(url, os.environ)) for url in urls if url)


def _dev_url(target: Target) -> str | None:
    return target.address(target.clone.dev_url_env) if target.clone.dev_url_env else None


async def _refuse_logical(target: Target, facts: Facts, found: Binaries) -> None:
    if facts.unreadable:
        raise Refused(
            f"Role {facts.backup_role} may not read {', '.join(facts.unreadable[:5])}"
            f"{' and others' if len(facts.unreadable) > 5 else ''}, so it cannot dump it. "
            "Grant it SELECT there, or name a role that may in replication_url_env."
        )
    dev_url = _dev_url(target)
    if dev_url is None:
        logical.refuse_scratch_server(found, facts)
        return
    async with connect(dev_url, purpose="clone check") as conn:
        await logical.refuse_dev_server(conn, facts)


def _refuse_full_disk(target: Target, facts: Facts, provider: ProviderName) -> None:
    """The snapshot and the clone lie on the same disk; a dump is about half its database."""
    if provider == "physical":
        needed = int(facts.cluster_bytes * 2.2)
    else:
        clone = 1.2 if target.clone.dev_url_env is None else 0
        needed = int(facts.database_bytes * (0.6 + clone))
    needed += _SPARE_BYTES
    with files.worded(f"looking at {target.snapshots_dir}"):
        target.snapshots_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(target.snapshots_dir).free
    if free < needed:
        raise Refused(
            f"{target.snapshots_dir} has {free / 2**30:.1f} GB free; the snapshot and its clone "
            f"need {needed / 2**30:.1f} GB. Free some, lower snapshot.keep, or move state_dir."
        )
