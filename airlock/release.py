"""The service's code as one commit, checked out beside the running one.

``<state>/<target>/service/releases/<commit>`` holds the whole repository at that commit. Beside it,
``.<commit>.ready`` says that the checkout is whole and what was built in it. No worktree of the
repository is touched, and its own configuration is only read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from airlock import permissions
from airlock.errors import Refused, Transient
from airlock.request import WORKING_TREE
from airlock.service import BY_HAND, Instance, Release, configured, delegated, log, table
from airlock.settings import ServiceSettings, Target

__all__ = ["Release", "again", "check_out", "git_environ", "of", "resolve", "working_tree"]

logger = logging.getLogger(__name__)

_GIT_S = 120
_BUILD_NEEDS = ("PIP_", "UV_", "NPM_CONFIG_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def git_environ() -> dict[str, str]:
    """Our environment without what would point git at another repository or ask a person.

    Nor with the auth string of Prefect's server: a repository may have hooks.
    """
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("GIT_", "PREFECT_"))}
    # Reading alone, git would write an index anew that may not even be ours.
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def trusted(repository: Path) -> list[str]:
    """Options with which git reads a repository of another user, and no other than this one.

    The settings name it, and its code runs as us. What git finds above it is trusted where it
    belongs to the same user: in a shared folder, anybody can plant a .git.
    """
    named = repository.resolve()
    folders = [named]
    with contextlib.suppress(OSError):
        owner = named.stat().st_uid
        top = next((each for each in (named, *named.parents) if (each / ".git").exists()), named)
        if {top.stat().st_uid, (top / ".git").lstat().st_uid} == {owner}:
            folders += [top, top / ".git"]
    return [part for folder in folders for part in ("-c", f"safe.directory={folder}")]


async def check_out(target: Target, ref: str, *, keep: Iterable[Path] = ()) -> Release:
    """The release of that commit, tag or branch, ready to start: checked out, built once, whole.

    ref: ``working-tree`` means the service's own folder; nothing is checked out then.
    keep: folders of earlier releases that must stay, besides running ones.
    Raises Refused when the ref is unknown or the build fails, Transient when another checkout of
    this target takes too long.
    """
    service = configured(target)
    if ref == WORKING_TREE:
        return await working_tree(service.directory)
    repository, subfolder = await _repository(service)
    commit = await resolve(repository, ref)
    async with _locked(target, service.build_timeout_s + _GIT_S):
        root = await _checked_out(target, repository, commit)
        directory = root / subfolder
        if not directory.is_dir():
            raise Refused(
                f"Commit {commit[:12]} ({ref}) has no folder {subfolder}, in which the service is "
                "started. Name a commit that has it, or mend service.directory."
            )
        await _build(target, commit, directory)
        current = delegated.current_directory(target)
        await asyncio.to_thread(_sweep, target, {root, current, *keep})
    committed_at = await _committed_at(repository, commit)
    return Release(ref=ref, commit=commit, directory=directory, committed_at=committed_at)


def of(target: Target, instance: Instance) -> Release:
    """The code an earlier instance ran, to start it again. Raises Refused when it is gone."""
    _check_there(target, instance, instance.directory)
    return Release.of(instance)


async def again(target: Target, served: Instance) -> Release:
    """The code that an instance runs, or ran, so that a deploy can leave it as it is.

    Of a working tree only the files of now are there: what changed since it was started is named.
    Raises Refused where the folder is gone, or nobody knows which it was.
    """
    folder = _folder(target, served)
    _check_there(target, served, folder)
    if (commit := _commit(target, folder)) is None:
        return await working_tree(folder, since=served.started_at)
    return Release(ref=served.ref or commit[:12], commit=commit, directory=folder)


def _folder(target: Target, served: Instance) -> Path:
    """The folder that the code of an instance was started from. Raises Refused if unknown."""
    service = configured(target)
    if _commit(target, served.directory) is not None:
        return served.directory
    if service.adapter != "process":
        # Where the process itself is says nothing: a unit or a container has a folder of its own.
        return delegated.current_directory(target)
    if served.release == BY_HAND and served.directory.resolve() != service.directory.resolve():
        raise Refused(
            f"The service of {target.name} was started by hand in {served.directory}, expected was "
            f"{service.directory}: which code it runs is not known. Name the code that is to run: "
            f"airlock deploy {target.name} --release REF, or --release {WORKING_TREE}"
        )
    return served.directory


def _commit(target: Target, folder: Path) -> str | None:
    """The commit whose checkout of ours a folder is, or is part of."""
    home, place = (target.service_dir / "releases").resolve(), folder.resolve()
    inner = place.relative_to(home).parts if place.is_relative_to(home) else ()
    return inner[0] if inner else None


def _check_there(target: Target, instance: Instance, folder: Path) -> None:
    if not folder.is_dir():
        raise Refused(
            f"The folder {folder} of release {instance.release} is gone, so {target.name} cannot "
            "run it again. Deploy that release by its commit or tag."
        )


async def resolve(repository: Path, ref: str) -> str:
    """The full hash of a commit, tag or branch. Raises Refused when there is none of that name."""
    found = ""
    # A leading dash would be read as an option; a NUL cannot be handed over at all.
    if ref and not ref.startswith("-") and "\0" not in ref:
        with contextlib.suppress(_GitError):
            found = await _git(repository, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if not found:
        raise Refused(
            f"{repository} has no commit, tag or branch {ref!r}. See what there is with: "
            f"git -C {repository} tag --sort=-creatordate; fetch what is missing."
        )
    return found


class _GitError(Exception):
    """What git said on its standard error, on one line: it stands in a sentence of ours."""


async def _git(repository: Path, *arguments: str, index: Path | None = None) -> str:
    environ = git_environ()
    if index is not None:
        environ["GIT_INDEX_FILE"] = str(index)
    process = await asyncio.create_subprocess_exec(
        *("git", *trusted(repository), "-C", str(repository), *arguments),
        env=environ,
        umask=permissions.callers_umask(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_GIT_S):
            output, problem = await process.communicate()
    except (TimeoutError, asyncio.CancelledError) as error:
        process.kill()
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise Transient(f"git {arguments[0]} took more than {_GIT_S} s in {repository}.") from None
    if process.returncode:
        raise _GitError(" ".join(problem.decode(errors="replace").split()))
    return output.decode(errors="replace").strip()


async def working_tree(folder: Path, *, since: datetime | None = None) -> Release:
    """A folder as it is, and what git says of it.

    since: files that changed after it are named as well, committed or not.
    """
    if not folder.is_dir():
        raise Refused(f"The service's folder {folder} does not exist. Fix service.directory.")
    try:
        commit = await _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
        status = await _git(folder, "status", "--porcelain", "--untracked-files=all", *_CODE)
        listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files = await _git(folder, *listed, *_CODE)
        committed_at = None if status else await _committed_at(folder, commit)
    except (_GitError, OSError):
        changed = await asyncio.to_thread(_changed, folder, _files(folder), since)
        return Release(ref=None, commit=None, directory=folder, changed=changed)
    return Release(
        ref=None,
        commit=commit,
        directory=folder,
        dirty=bool(status),
        committed_at=committed_at,
        uncommitted=_some(line.strip() for line in status.splitlines()),
        changed=await asyncio.to_thread(_changed, folder, files.split("\0"), since),
    )


# What Python writes by itself when a service is started is no change of its code.
_CODE = ("--", ".", ":(exclude,glob)**/__pycache__/**")
_NAMED = 20


def _files(folder: Path) -> Iterator[str]:
    """The files of a folder that git does not know, hidden ones left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith((".", "__pycache__"))]
        yield from (str((Path(place) / each).relative_to(folder)) for each in names)


def _changed(folder: Path, names: Iterable[str], since: datetime | None) -> tuple[str, ...]:
    """Those of the files that were written, put there or removed after a moment."""
    if since is None:
        return ()
    moment = since.timestamp()
    return _some(sorted(each for each in names if each and _changed_at(folder / each) > moment))


def _changed_at(path: Path) -> float:
    """By the inode, which no copying tool sets back; of a file that is gone by its folder."""
    with contextlib.suppress(OSError):
        return path.lstat().st_ctime
    return _changed_at(path.parent)


def _some(names: Iterable[str]) -> tuple[str, ...]:
    every = [" ".join(each.split()) for each in names]  # a name may hold a line break
    left = len(every) - _NAMED
    return (*every[:_NAMED], *((f"and {left} more",) if left > 0 else ()))


async def _committed_at(repository: Path, commit: str) -> datetime | None:
    """When the commit was made; None where git does not say."""
    try:
        said = await _git(repository, "show", "--no-patch", "--format=%ct", commit)
        return datetime.fromtimestamp(int(said), UTC)
    except (_GitError, ValueError, OverflowError):
        return None


async def _repository(service: ServiceSettings) -> tuple[Path, Path]:
    """The repository, and the service's folder inside it."""
    named = service.repository or service.directory
    try:
        git_dir = Path(await _git(named, "rev-parse", "--absolute-git-dir"))
    except (_GitError, OSError) as error:
        raise Refused(
            f"{named} is no git repository that can be read ({error}), and a release was asked "
            "for. Name the service's repository in service.repository."
        ) from error
    try:
        top = Path(await _git(named, "rev-parse", "--show-toplevel")).resolve()
    except _GitError:
        return git_dir, Path()
    folder = service.directory.resolve()
    return git_dir, folder.relative_to(top) if folder.is_relative_to(top) else Path()


@asynccontextmanager
async def _locked(target: Target, timeout_s: float) -> AsyncGenerator[None, None]:
    """One checkout of a target at a time, across processes; a crash lets go."""
    folder = log.private(target.service_dir / "releases")
    until = time.monotonic() + timeout_s
    with (folder / ".lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Transient(
                        f"Another checkout for {target.name} holds {file.name} for more than "
                        f"{timeout_s:g} s. Try again when it is done."
                    ) from None
            await asyncio.sleep(0.05)
        yield


def _ready_mark(target: Target, commit: str) -> Path:
    return target.service_dir / "releases" / f".{commit}.ready"


async def _checked_out(target: Target, repository: Path, commit: str) -> Path:
    folder = target.service_dir / "releases"
    root = folder / commit
    for leftover in folder.glob(".*.tmp"):
        await asyncio.to_thread(_remove, leftover)
    if root.is_dir():
        if _ready_mark(target, commit).is_file() or root in _in_use(folder):
            return root
        # An interrupted build may have left anything behind.
        await asyncio.to_thread(_remove, root)
    temporary = folder / f".{commit[:12]}.{secrets.token_hex(4)}.tmp"
    index = folder / f".{commit[:12]}.{secrets.token_hex(4)}.index.tmp"
    temporary.mkdir()
    temporary.chmod(0o777 & ~permissions.callers_umask())
    try:
        await _git(repository, "read-tree", commit, index=index)
        await _git(
            *(repository, "--work-tree", str(temporary), "checkout-index", "--all"), index=index
        )
        temporary.rename(root)
    except _GitError as error:
        raise Refused(
            f"Commit {commit[:12]} cannot be checked out of {repository}: {error}"
        ) from error
    finally:
        await asyncio.to_thread(_remove, temporary)
        index.unlink(missing_ok=True)
    logger.info("Release checked out", extra={"commit": commit})
    return root


async def _build(target: Target, commit: str, directory: Path) -> None:
    """Run the build command, once per commit and command."""
    service, mark = configured(target), _ready_mark(target, commit)
    wanted = "\0".join(service.build)
    if mark.is_file() and mark.read_text() == wanted:
        # The sweep goes by when a release was last asked for.
        mark.touch()
        return
    if service.build:
        await _run_build(target, service, commit, directory)
    mark.write_text(wanted)


async def _run_build(
    target: Target, service: ServiceSettings, commit: str, directory: Path
) -> None:
    mark = log.mark(log.path(target, f"build-{commit[:12]}"))
    output = os.open(mark.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *service.build,
                cwd=directory,
                env=_build_environ(),
                umask=permissions.callers_umask(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(
                f"The build command {service.build[0]!r} cannot be run: {error.strerror}. "
                "Mend service.build."
            ) from error
        ended = await _end_of(process, service.build_timeout_s)
    finally:
        os.close(output)
    if ended != "status 0":
        raise Refused(
            f"Building commit {commit[:12]} with {' '.join(service.build)!r} failed: {ended}. "
            f"Its last lines:\n{log.tail(target, [mark])}\nMend the build and deploy again."
        )
    logger.info("Release built", extra={"commit": commit})


async def _end_of(process: asyncio.subprocess.Process, timeout_s: float) -> str:
    """How a command of ours ended; with its whole group at the deadline."""
    try:
        async with asyncio.timeout(timeout_s):
            return f"status {await process.wait()}"
    except TimeoutError:
        return f"it took more than {timeout_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _build_environ() -> dict[str, str]:
    """No secrets: a build needs the network, not the database."""
    from airlock.service.starting import base_environ

    needed = {n: v for n, v in os.environ.items() if n.upper().startswith(_BUILD_NEEDS)}
    return {**base_environ(), **needed}


def _in_use(folder: Path) -> set[Path]:
    """The releases that some process has as its working folder."""
    home = folder.resolve()
    places = (table.directory(process.pid) for process in table.everything())
    inside = (p.relative_to(home) for p in places if p is not None and p.is_relative_to(home))
    return {folder / inner.parts[0] for inner in inside if inner.parts}


def _sweep(target: Target, keep: set[Path]) -> None:
    """Remove all but the last few releases, the running ones, and those in ``keep``."""
    folder = target.service_dir / "releases"
    wanted = {path.resolve() for path in (*keep, *_in_use(folder))}
    marks = sorted(folder.glob(".*.ready"), key=lambda mark: mark.stat().st_mtime, reverse=True)
    for mark in marks[configured(target).keep_releases :]:
        root = folder / mark.name.removeprefix(".").removesuffix(".ready")
        if any(path.is_relative_to(root.resolve()) for path in wanted):
            continue
        # The mark first: a half-removed folder must not count as whole.
        mark.unlink()
        _remove(root)
        logger.info("Release removed", extra={"commit": root.name})


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
