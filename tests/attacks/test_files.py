"""What is on the disk: who else may read it, and what a file of the project may turn out to be."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from airlock import permissions, server, service
from tests.attacks.nobody import as_nobody, nobody
from tests.stage import BOOT, Stage, make_repository, receiving, standing

OTHER_USER = "another user of this machine"
AUTHOR = "the author of a branch"
DEPLOY_S = 180

WRITES = {
    "v1": ("routes.py", "", ""),
    "writes": ("start_server.py", "    " + BOOT, '    open("written", "w").close()\n    ' + BOOT),
}


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="airlock-t-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def stage(
    reachable: Path,
    pg: server.Server,
    base_009: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Production at 009, its project where every user can go, its service not yet started."""
    repository = make_repository(tmp_path / "service", WRITES)
    async with (
        receiving() as webhook,
        standing(
            reachable / "project",
            pg=pg,
            base=base_009,
            repository=repository,
            webhook=webhook,
            patch=monkeypatch,
        ) as made,
    ):
        (reachable / "project").chmod(0o755)
        found = await service.find(made.target)
        assert found is not None
        await service.stop(made.target, found)
        shutil.rmtree(made.target.state_dir)
        made.change("[targets.prod]", 'state_dir = "outer/inner/state"\n[targets.prod]')
        made.change("[targets.prod.service]", '[targets.prod.service]\nbuild = ["touch", "built"]')
        yield made


def airlock(*arguments: str, umask: int) -> list[str]:
    """The command line, called with a umask."""
    calling = f'umask {umask:03o}; exec "$@"'
    return ["sh", "-c", calling, "sh", sys.executable, "-P", "-m", "airlock", *arguments]


def called() -> dict[str, str]:
    """The environment of whoever calls: without what the tests' own process was called with."""
    return {name: value for name, value in os.environ.items() if name != permissions.VARIABLE}


@as_nobody
@pytest.mark.attack(by=OTHER_USER, tries="every file and folder of the state folder, in a deploy")
@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_nobody_reads_or_lists_anything_of_ours_whatever_the_umask(
    stage: Stage, umask: int
) -> None:
    outer = stage.root / "outer"
    deploy = await asyncio.create_subprocess_exec(
        *airlock("deploy", "prod", "--release", "writes", umask=umask),
        cwd=stage.root,
        env=called(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    ended = asyncio.ensure_future(deploy.communicate())
    got: list[str] = []
    async with nobody() as other, asyncio.timeout(DEPLOY_S):
        while True:
            over = ended.done()
            found, tried = await other.gets_at(outer)
            got += found
            if over:
                break
            await asyncio.sleep(0.1)
    output = (await ended)[0].decode()
    assert deploy.returncode == 0, output
    assert (stage.root / "outer").stat().st_mode & 0o777 == 0o700
    assert list(stage.target.snapshots_dir.iterdir())
    assert list((stage.target.service_dir / "logs").iterdir())
    assert tried > 100
    assert sorted(set(got)) == []


@as_nobody
@pytest.mark.parametrize("umask", [0o000, 0o027])
@pytest.mark.attack(by=OTHER_USER, tries="what the service, its build and its checkout wrote")
async def test_what_is_not_ours_has_the_umask_of_whoever_called(stage: Stage, umask: int) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        airlock("deploy", "prod", "--release", "writes", umask=umask),
        cwd=stage.root,
        env=called(),
        capture_output=True,
        text=True,
        timeout=DEPLOY_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (checkout,) = stage.target.service_dir.glob("releases/[0-9a-f]*")
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (checkout / "written", checkout / "built", checkout / "routes.py", checkout)
    }
    plain, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {
        "written": plain,
        "built": plain,
        "routes.py": plain,
        checkout.name: folder,
    }
