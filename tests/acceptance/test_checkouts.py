"""A deploy from a checkout that belongs to another user, who let nobody else write to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlock import record, service
from airlock.release import Release
from airlock.request import WORKING_TREE
from tests import own
from tests.patience import PATIENCE_S
from tests.stage import Stage

# Root becomes a user for whom the files of others are not writable: no user has to be made for it.
AS_ANOTHER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
DEPLOY_S = 180


def _works() -> bool:
    try:
        tried = subprocess.run([*AS_ANOTHER, "true"], check=False, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not _works(), reason="root and user namespaces, to own files as two users"
)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """The stage does not find the service that the other user starts: its state is elsewhere."""
    yield
    own.end_all(tmp_path)


def contents(folder: Path) -> set[tuple[str, int, int]]:
    """Every path below a folder, its mode, and when it was written."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {(str(path), stat.st_mode, stat.st_mtime_ns) for path, stat in found}


def give_to_another(folder: Path) -> None:
    for command in (["chmod", "a+rX,go-w"], ["chown", "--no-dereference", "nobody"]):
        subprocess.run([*command, "-R", folder], check=True)


@needs_root
@pytest.mark.parametrize("wanted", ["v2", WORKING_TREE])
async def test_a_checkout_of_another_user_is_deployed_from_and_never_written_to(
    stage: Stage, tmp_path: Path, wanted: str
) -> None:
    state_dir = stage.target.state_dir
    found = await service.find(stage.target)
    assert found is not None
    await service.stop(stage.target, found)
    shutil.rmtree(state_dir)
    stage.change("[targets.prod]", f'state_dir = "{tmp_path}/state"\n[targets.prod]')
    # As a person leaves a working tree: git would write its index anew.
    for path in (stage.root / "service").glob("*.py"):
        os.utime(path, (1, 1))
    give_to_another(stage.root)
    before = contents(stage.root)
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(*AS_ANOTHER, sys.executable, "-P", "-m", "airlock", "deploy", "prod"),
            *("--release", wanted),
        ],
        cwd=stage.root,
        capture_output=True,
        text=True,
        timeout=DEPLOY_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(stage.root) == before
    row = await stage.last()
    chosen = record.load(Release, row.release)
    assert chosen.commit is not None
    assert (await stage.health())["status"] == "ok"
