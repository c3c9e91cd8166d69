"""Snapshots that are damaged, disks that are full, folders that cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from tests.faults.theatre import Case, Theatre
from tests.people import connect

# Room for a deploy; most of it is taken away later.
_DISK_BYTES = 600 * 2**20
_LEFT_BYTES = 2**20
_OF_ANOTHER = {
    "another server": {"system_identifier": "7000000000000000000"},
    "another database": {"database": "another"},
    "an older schema": {"migration_head": "008_deal_sources"},
}
# What is written by which step, and where that is about to begin.
_WRITTEN = {
    "snapshots": "take_snapshot: before the snapshot's files",
    "clones": "rehearse: after the intent",
    "service/logs": "restart_service: before the start of an instance",
}


def cases() -> Iterator[Case]:
    yield from of_snapshots()
    for folder, point in _WRITTEN.items():
        step = point.partition(": ")[0]
        if may_mount():
            play = partial(_full, folder, point)
            yield _case(f"the disk of {folder} is full", f"forwards, {step}", play)
            play = partial(_read_only, folder)
            yield _case(f"{folder} cannot be written", f"forwards, {step}", play)
        play = partial(_limited, point)
        yield _case("no file may grow beyond 64 kB", f"forwards, {step}", play)
    for folder, step in (
        ("snapshots", "take_snapshot"),
        ("clones", "rehearse"),
        ("service/releases", "prepare_release"),
    ):
        yield _case(
            f"a file is in the place of {folder}", f"forwards, {step}", partial(_in_place, folder)
        )


def of_snapshots() -> Iterator[Case]:
    """Those whose snapshot is not what it was, or not of here."""
    damages = {"truncated": _truncate, "bit-flipped": _flip, "with an edited manifest": _edit}
    for said, damage in damages.items():
        fault = f"the snapshot is {said}"
        yield _case(fault, "forwards, rehearse", partial(_damaged, damage), {"failed"})
    for said, changed in _OF_ANOTHER.items():
        play = partial(_of_another, json.dumps(changed))
        yield _case(f"the snapshot is of {said}", "forwards, rehearse", play, {"failed"})


@cache
def may_mount() -> bool:
    """Whether a disk in memory can be mounted here. Limits on files need no such right."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False
        )
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return mounted.returncode == 0


def _case(fault: str, where: str, play, ends: set[str] | None = None) -> Case:
    return Case(
        name=f"{fault} / {where}",
        fault=fault,
        where=where,
        play=play,
        ends=frozenset(ends or {"failed", "rolled_back", "succeeded"}),
    )


async def _damaged(damage: Callable[[Path], None], theatre: Theatre) -> None:
    """Between its taking and its restoring."""
    fault = theatre.fault("wait", "rehearse: before the intent")
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    (taken,) = [each for each in theatre.stage.target.snapshots_dir.iterdir() if each.is_dir()]
    damage(taken)
    theatre.go(fault)
    await child.wait()
    # It is kept for whoever wants to know why.
    shutil.rmtree(taken)


def _largest(snapshot: Path) -> Path:
    return max(
        (snapshot / "data").rglob("*"), key=lambda path: (path.is_file(), path.stat().st_size)
    )


def _truncate(snapshot: Path) -> None:
    file = _largest(snapshot)
    os.truncate(file, file.stat().st_size // 2)


def _flip(snapshot: Path) -> None:
    file = _largest(snapshot)
    seen = file.stat()
    with file.open("r+b") as opened:
        opened.seek(seen.st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(seen.st_size // 2)
        opened.write(bytes([byte ^ 1]))
    # As a disk does it: nobody has written.
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _edit(snapshot: Path) -> None:
    manifest = snapshot / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    assert '"migration_head"' in text
    manifest.write_text(text.replace('"prod"', '"test"', 1), encoding="utf-8")


async def _of_another(changed: str, theatre: Theatre) -> None:
    """The ledger came here with its database; the snapshot is of where or when that was."""
    fault = theatre.fault("wait", "rehearse: before the intent")
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    async with connect(theatre.stage.superuser_url) as conn:
        await conn.execute(
            "UPDATE airlock.deploy SET snapshot = snapshot || $1 WHERE state = 'snapshotted'",
            changed,
        )
    theatre.go(fault)
    await child.wait()


async def _limited(point: str, theatre: Theatre) -> None:
    await theatre.deploy("v2", theatre.fault("small files", point))


async def _read_only(folder: str, theatre: Theatre) -> None:
    place = theatre.stage.target.state_dir / "prod" / folder
    theatre.mount(place, "ro")
    await theatre.deploy("v2")


async def _full(folder: str, point: str, theatre: Theatre) -> None:
    """A disk of its own for one folder, full from one point on."""
    place = theatre.stage.target.state_dir / "prod" / folder
    theatre.mount(place, f"size={_DISK_BYTES}")
    fault = theatre.fault("wait", point)
    child = await theatre.start("deploy", fault, release="v2")
    await theatre.reached(fault, child)
    free = os.statvfs(place)
    filler = place / "filler"
    with filler.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, free.f_bavail * free.f_frsize - _LEFT_BYTES)
    theatre.go(fault)
    await child.wait()
    filler.unlink()


async def _in_place(folder: str, theatre: Theatre) -> None:
    place = theatre.stage.target.state_dir / "prod" / folder
    aside = place.with_name(place.name + "-aside")
    if place.exists():
        place.rename(aside)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("no folder", encoding="utf-8")
    child = await theatre.start("deploy", release="v2")
    await child.wait()
    place.unlink()
    if aside.exists():
        aside.rename(place)
