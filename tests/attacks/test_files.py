"""What is on the disk: who else may read it, and what a file of the project may turn out to be."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from airlock import permissions, release, server, service, settings
from airlock.errors import Refused
from airlock.request import WORKING_TREE
from tests.attacks.nobody import as_nobody, nobody
from tests.stage import BOOT, Stage, git, make_repository, receiving, standing

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


# ---------------------------------------------------------------- env files


@pytest.mark.attack(by=OTHER_USER, tries="reading, changing or replacing an env file", sample=True)
@pytest.mark.parametrize(
    ("owner", "mode", "folder", "said"),
    [
        ("root", 0o600, 0o755, None),
        ("root", 0o644, 0o700, None),
        ("root", 0o666, 0o710, None),
        ("root", 0o640, 0o755, None),
        ("root", 0o600, 0o1777, None),
        ("root", 0o644, 0o755, "can be read by another user. .*chmod 600 {path}"),
        ("root", 0o604, 0o711, "can be read by another user. .*chmod 600 {path}"),
        ("root", 0o646, 0o755, "can be changed by another user. .*chmod 600 {path}"),
        ("root:nogroup", 0o640, 0o755, "can be read by another user. .*chmod 600 {path}"),
        ("root:nogroup", 0o604, 0o755, "can be read by another user. .*chmod 600 {path}"),
        ("root", 0o600, 0o777, "can be replaced by another user.*chmod go-w {folder}"),
        ("nobody", 0o600, 0o755, "belongs to the user nobody. .*chown root {path}"),
    ],
)
@as_nobody
async def test_an_env_file_that_another_user_reaches_is_refused_with_the_command(
    reachable: Path, owner: str, mode: int, folder: int, said: str | None
) -> None:
    path = reachable / "settings" / "prod.env"
    path.parent.mkdir()
    path.write_text("PROD_URL=s3cr3t\n", encoding="utf-8")
    user, _, group = owner.partition(":")
    shutil.chown(path, user, group or None)
    path.chmod(mode)
    path.parent.chmod(folder)
    async with nobody() as other:
        reads = f"read {path}" in (await other.gets_at(reachable))[0]
    assert not (reads and said is None), "the file may be read, and that was taken for fine"
    if said is None:
        assert settings.read_env_file(path) == {"PROD_URL": "s3cr3t"}
        return
    with pytest.raises(Refused, match=said.format(path=path, folder=path.parent)):
        settings.read_env_file(path)


@as_nobody
@pytest.mark.attack(by=OTHER_USER, tries="a link to an env file, in a folder of all", sample=True)
def test_an_env_file_is_not_read_through_a_link_that_another_user_can_replace(
    reachable: Path,
) -> None:
    private, shared = reachable / "private", reachable / "shared"
    private.mkdir(mode=0o700)
    (private / "prod.env").write_text("A=1\n", encoding="utf-8")
    shared.mkdir()
    (shared / "prod.env").symlink_to(private / "prod.env")
    assert settings.read_env_file(shared / "prod.env") == {"A": "1"}
    shared.chmod(0o777)
    with pytest.raises(Refused, match=f"can be replaced .*chmod go-w {shared}"):
        settings.read_env_file(shared / "prod.env")


# ---------------------------------------------------------------- files that are something else


SECRET = "s3cr3t:20000:0:99999:7:::"
LIMITS = 'ulimit -v 6000000; ulimit -t 30; exec "$@"'


def _link_elsewhere(path: Path) -> None:
    outside = path.parents[2] / "shadow"
    outside.write_text(SECRET, encoding="utf-8")
    path.symlink_to(outside)


def _link_back_out(path: Path) -> None:
    _link_elsewhere(path.with_name("linked"))
    path.symlink_to("linked")


def _link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


def _very_large(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**31)


ODD = [_link_elsewhere, _link_back_out, _link_to_zeros, _loop, _pipe, _folder, _very_large]


@pytest.mark.attack(by=AUTHOR, tries="a migration that is a link, a device, a pipe, or endless")
@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("command", [("lint",), ("lint", "migrations"), ("new", "deal scores")])
def test_a_migration_that_is_no_file_of_its_folder_is_refused_and_nothing_of_it_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    command: list[str],
) -> None:
    project = tmp_path / "project"
    (project / "migrations").mkdir(parents=True)
    (project / settings.CONFIG_NAME).write_text("[targets]\n", encoding="utf-8")
    make(project / "migrations" / "001_odd.sql")
    monkeypatch.delenv(settings.CONFIG_VARIABLE, raising=False)
    done = run_bounded(command, project)
    assert done.returncode == 1, done.stderr
    assert "001_odd.sql" in done.stdout + done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.attack(by=AUTHOR, tries="settings that are a device, a pipe, or endless")
@pytest.mark.parametrize("make", [_link_to_zeros, _loop, _pipe, _folder, _very_large])
@pytest.mark.parametrize("name", [settings.CONFIG_NAME, "prod.env"])
def test_settings_that_are_no_file_are_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str
) -> None:
    (tmp_path / "migrations").mkdir()
    if name != settings.CONFIG_NAME:
        text = f'[targets.prod]\ndatabase_url_env = "NOT_SET"\nenv_file = "{name}"\n'
        (tmp_path / settings.CONFIG_NAME).write_text(text, encoding="utf-8")
    make(tmp_path / name)
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / settings.CONFIG_NAME))
    done = run_bounded(["plan", "prod"], tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def run_bounded(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line, which may neither wait for ever nor take all memory."""
    return subprocess.run(
        ["sh", "-c", LIMITS, "sh", sys.executable, "-P", "-m", "airlock", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.attack(by=AUTHOR, tries="a log file of the service that is a pipe or a device")
@pytest.mark.parametrize("make", [_link_to_zeros, _pipe, _folder])
def test_a_log_file_that_is_no_file_has_no_lines(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "service.log")
    reading = (
        "import sys; from pathlib import Path; from airlock.service import LogMark, log; "
        "print(log.since(log.mark(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        ["sh", "-c", LIMITS, "sh", sys.executable, "-c", reading, str(tmp_path / "service.log")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


def plant(folder: Path) -> None:
    """A repository of another user that runs a command when git only looks."""
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "planted")
    git(folder, "config", "core.fsmonitor", f"touch {folder}/ran; false")
    subprocess.run(["chown", "-R", "nobody", folder / ".git"], check=True)


@as_nobody
@pytest.mark.attack(by=OTHER_USER, tries="a .git that git finds above the service", sample=True)
async def test_a_git_folder_that_somebody_planted_above_the_service_runs_nothing(
    reachable: Path,
) -> None:
    directory = reachable / "app"
    directory.mkdir()
    plant(reachable)
    target = settings.Target(
        name="prod",
        root=reachable,
        state_dir=reachable / "state",
        migrations_dir=reachable,
        database_url_env="NOT_SET",
        service=settings.ServiceSettings(directory=directory),
    )
    found = await release.check_out(target, WORKING_TREE)
    assert (found.name, (reachable / "ran").exists()) == ("unversioned", False)
