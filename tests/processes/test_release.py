from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from airlock import release, service
from airlock.errors import Broken, Refused
from airlock.service import Release
from tests.patience import PATIENCE_S

from .conftest import STUB, Stage


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *who, *arguments],
        cwd=folder,
        env=release.git_environ(),
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(stage: Stage) -> Path:
    """The stub in the subfolder "app", with tags v1, v2, v3 that differ in app/VERSION."""
    folder = stage.folder
    git(folder, "init", "--quiet", "--initial-branch=main")
    for version in ("v1", "v2", "v3"):
        (folder / "app" / "VERSION").write_text(f"{version}\n")
        git(folder, "add", "app")
        git(folder, "commit", "--quiet", "-m", version)
        git(folder, "tag", version)
    stage.options["repository"] = folder
    return folder


async def test_a_tag_is_checked_out_beside_and_the_service_runs_from_there(
    stage: Stage, repository: Path
) -> None:
    first = await service.restart(stage.target, stage.release(), old=None, token="one")
    chosen = await release.check_out(stage.target, "v1")
    assert chosen.commit == git(repository, "rev-parse", "v1")
    assert chosen.directory == stage.target.service_dir / "releases" / str(chosen.commit) / "app"
    assert chosen.can_go_back
    await service.restart(stage.target, chosen, old=first.new, token="two")
    said = await stage.who()
    assert (said["version"], said["release"]) == ("v1", "v1")
    back = release.of(stage.target, first.new)
    await service.restart(stage.target, back, old=None, token="three")
    assert (await stage.who())["version"] == "v3"


async def test_the_running_folder_and_the_repository_stay_as_they_were(
    stage: Stage, repository: Path
) -> None:
    before = git(repository, "status", "--porcelain", "--branch")
    (repository / "app" / "VERSION").write_text("edited\n")
    await release.check_out(stage.target, "v1")
    assert (repository / "app" / "VERSION").read_text() == "edited\n"
    (repository / "app" / "VERSION").write_text("v3\n")
    assert (
        git(repository, "status", "--porcelain", "--branch").split("\n")[0] == before.split("\n")[0]
    )
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize("ref", ["v9", "", "--upload-pack=x", "HEAD:app", "v1 v2"])
async def test_an_unknown_ref_is_refused_by_name_with_the_command_to_see_tags(
    stage: Stage, repository: Path, ref: str
) -> None:
    with pytest.raises(Refused, match=r"no commit, tag or branch .*git -C .* tag"):
        await release.check_out(stage.target, ref)


async def test_without_a_repository_a_ref_is_refused(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"no git repository.*service\.repository"):
        await release.check_out(stage.target, "v1")


async def test_without_a_ref_the_own_folder_is_used_and_the_code_cannot_go_back(
    stage: Stage, repository: Path
) -> None:
    own = await release.check_out(stage.target, None)
    assert own.directory == repository / "app"
    assert (own.can_go_back, own.dirty) == (False, False)
    (repository / "app" / "VERSION").write_text("edited\n")
    edited = await release.check_out(stage.target, None)
    assert edited.name.endswith("-dirty")
    shutil.rmtree(repository / ".git")
    assert (await release.check_out(stage.target, None)).name == "unversioned"


async def test_checkouts_at_the_same_time_build_once_and_agree(
    stage: Stage, repository: Path
) -> None:
    stage.options["build"] = ("sh", "-c", "echo built >> BUILT; sleep 0.2")
    chosen = await asyncio.gather(*(release.check_out(stage.target, "v2") for _ in range(3)))
    assert len(set(chosen)) == 1
    assert (chosen[0].directory / "BUILT").read_text() == "built\n"
    assert list((stage.target.service_dir / "releases").glob(".*.tmp")) == []


async def test_a_failing_build_is_refused_with_its_last_lines_and_tried_afresh(
    stage: Stage, repository: Path
) -> None:
    stage.options["build"] = ("sh", "-c", "touch HALF; echo no such wheel; exit 3")
    with pytest.raises(Refused, match=r"(?s)failed: status 3.*no such wheel"):
        await release.check_out(stage.target, "v2")
    stage.options["build"] = ("true",)
    chosen = await release.check_out(stage.target, "v2")
    assert not (chosen.directory / "HALF").exists()


async def test_a_build_that_takes_too_long_is_ended(stage: Stage, repository: Path) -> None:
    stage.options |= {"build": ("sleep", "30"), "build_timeout_s": 0.3}
    with pytest.raises(Refused, match=r"took more than 0\.3 s"):
        await release.check_out(stage.target, "v2")


async def test_an_interrupted_checkout_is_done_again(stage: Stage, repository: Path) -> None:
    releases = stage.target.service_dir / "releases"
    commit = git(repository, "rev-parse", "v2")
    (releases / commit / "app").mkdir(parents=True)
    (releases / ".abc.tmp").mkdir()
    chosen = await release.check_out(stage.target, "v2")
    assert (chosen.directory / "VERSION").read_text() == "v2\n"
    assert not (releases / ".abc.tmp").exists()


async def test_old_releases_go_but_never_a_running_or_a_given_one(
    stage: Stage, repository: Path
) -> None:
    stage.options["keep_releases"] = 1
    running = await release.check_out(stage.target, "v1")
    await service.restart(stage.target, running, old=None, token="one")
    given = await release.check_out(stage.target, "v2")
    last = await release.check_out(stage.target, "v3", keep=[given.directory])
    assert all(each.directory.is_dir() for each in (running, given, last))
    await release.check_out(stage.target, "v3")
    assert [each.directory.is_dir() for each in (running, given, last)] == [True, False, True]


async def test_a_release_whose_folder_is_gone_is_refused(stage: Stage) -> None:
    first = await stage.restart("one")
    gone = type(first.new)(
        pid=1,
        create_time=0,
        boot_id="",
        token=None,
        release="v1",
        started_at=first.new.started_at,
        directory=stage.folder / "gone",
    )
    with pytest.raises(Refused, match="is gone"):
        release.of(stage.target, gone)


async def test_a_git_environment_of_ours_does_not_lead_astray(
    stage: Stage, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(stage.folder / "nowhere"))
    assert (await release.check_out(stage.target, "v2")).commit


async def test_a_bad_release_leaves_the_earlier_one_serving(stage: Stage, repository: Path) -> None:
    good = await release.check_out(stage.target, "v1")
    await service.restart(stage.target, good, old=None, token="one")
    (repository / "app" / "start_server.py").write_text("raise SystemExit('bad release')\n")
    git(repository, "commit", "--quiet", "-a", "-m", "bad")
    bad = await release.check_out(stage.target, "main")
    with pytest.raises(Broken, match=r"(?s)bad release.*still serves"):
        await service.restart(stage.target, bad, old=None, token="two")
    assert (await stage.who())["version"] == "v1"
    assert STUB.exists()
    assert isinstance(bad, Release)
