from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from airlock import release, service
from airlock.errors import Broken, Refused
from airlock.request import WORKING_TREE
from airlock.service import Instance, Release, delegated
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


async def test_the_working_tree_is_used_as_it_is_with_what_is_not_committed_named(
    stage: Stage, repository: Path
) -> None:
    own = await release.check_out(stage.target, WORKING_TREE)
    assert own.directory == repository / "app"
    assert (own.can_go_back, own.dirty) == (False, False)
    assert own.sentence.endswith(f", at commit {own.name}")
    (repository / "app" / "VERSION").write_text("edited\n")
    (repository / "app" / "notes.txt").touch()
    (repository / "app" / "__pycache__").mkdir(exist_ok=True)
    (repository / "app" / "__pycache__" / "start_server.pyc").touch()
    edited = await release.check_out(stage.target, WORKING_TREE)
    assert edited.name.endswith("-dirty")
    assert edited.uncommitted == ("M app/VERSION", "?? app/notes.txt")
    shutil.rmtree(repository / ".git")
    assert (await release.check_out(stage.target, WORKING_TREE)).name == "unversioned"


async def served(stage: Stage) -> Instance:
    found = await service.find(stage.target)
    assert found is not None
    return found


async def test_a_commit_that_serves_is_kept_whatever_became_of_its_tag_and_of_the_own_folder(
    stage: Stage, repository: Path
) -> None:
    chosen = await release.check_out(stage.target, "v1")
    await service.restart(stage.target, chosen, old=None, token="one")
    git(repository, "tag", "--force", "v1", "v3")
    (repository / "app" / "VERSION").write_text("edited\n")
    kept = await release.again(stage.target, await served(stage))
    assert (kept.ref, kept.commit, kept.directory) == ("v1", chosen.commit, chosen.directory)


@pytest.mark.parametrize("in_git", [True, False])
async def test_a_working_tree_that_serves_is_kept_and_what_changed_since_its_start_is_named(
    stage: Stage, repository: Path, in_git: bool
) -> None:
    if not in_git:
        shutil.rmtree(repository / ".git")
    (repository / "app" / "before.py").touch()
    # When a process began is known to a hundredth of a second.
    await asyncio.sleep(0.1)
    await stage.start_by_hand()
    kept = await release.again(stage.target, await served(stage))
    assert (kept.ref, kept.directory, kept.changed) == (None, repository / "app", ())
    (repository / "app" / "VERSION").write_text("edited\n")
    (repository / "app" / "later.py").touch()
    # As a copying tool does.
    os.utime(repository / "app" / "later.py", (0, 0))
    if in_git:
        git(repository, "add", "app")
        git(repository, "commit", "--quiet", "-m", "later")
    kept = await release.again(stage.target, await served(stage))
    assert kept.changed == ("VERSION", "later.py")
    assert "changed since the instance that serves was started: VERSION, later.py" in kept.sentence
    assert kept.dirty is False


async def test_no_more_names_are_kept_of_a_working_tree_than_a_person_reads(
    stage: Stage, repository: Path
) -> None:
    for number in range(30):
        (repository / "app" / f"new{number:02d}.py").touch()
    own = await release.check_out(stage.target, WORKING_TREE)
    assert (len(own.uncommitted), own.uncommitted[-1]) == (21, "and 10 more")


async def test_what_was_started_by_hand_elsewhere_is_not_known_and_refused(
    stage: Stage, repository: Path
) -> None:
    by_hand = replace(
        (await stage.restart("one")).new, release=service.BY_HAND, directory=repository
    )
    with pytest.raises(Refused, match=r"started by hand in .*--release REF"):
        await release.again(stage.target, by_hand)


@pytest.mark.parametrize("adapter", ["systemd", "command"])
async def test_where_others_start_the_service_the_code_that_stays_is_where_the_link_leads(
    stage: Stage, repository: Path, adapter: str
) -> None:
    first = (await stage.restart("one")).new
    elsewhere = replace(first, release="as the unit has it", directory=Path("/"))
    stage.options["adapter"] = adapter
    kept = await release.again(stage.target, elsewhere)
    assert (kept.ref, kept.directory) == (None, (repository / "app").resolve())
    chosen = await release.check_out(stage.target, "v1")
    async with delegated.current(stage.target, chosen):
        pass
    kept = await release.again(stage.target, elsewhere)
    assert (kept.commit, kept.directory) == (chosen.commit, chosen.directory.resolve())


async def test_checkouts_at_the_same_time_build_once_and_agree(
    stage: Stage, repository: Path
) -> None:
    stage.options["build"] = ("sh", "-c", "echo built >> BUILT; sleep 0.2")
    chosen = await asyncio.gather(*(release.check_out(stage.target, "v2") for _ in range(3)))
    assert len(set(chosen)) == 1
    assert (chosen[0].directory / "BUILT").read_text() == "built\n"
    assert list((stage.target.service_dir / "releases").glob(".*.tmp")) == []


async def test_no_program_of_a_release_sees_the_auth_string_of_prefects_server(
    stage: Stage, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, "airlock:not-for-releases")
    seen = tmp_path / "seen"
    hook = repository / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nenv | sed s/^/hook:/ >> {seen}\n", encoding="utf-8")
    hook.chmod(0o755)
    stage.options["build"] = ("sh", "-c", f"env | sed s/^/build:/ >> {seen}")
    chosen = await release.check_out(stage.target, "v2")
    started = await service.restart(stage.target, chosen, old=None, token="one")
    text = seen.read_text() + Path(f"/proc/{started.new.pid}/environ").read_text()
    assert all(f"{program}:PATH=" in text for program in ("hook", "build"))
    assert "AIRLOCK_INSTANCE=one" in text
    assert "not-for-releases" not in text


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
