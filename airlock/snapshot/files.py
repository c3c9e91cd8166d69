"""Many files at once: hash them, check them, copy them; and folders that one process owns.

hashlib and file I/O release the interpreter's lock, so that threads use every core. No file is
ever read whole.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from airlock.errors import AirlockError, Refused, Transient
from airlock.server import release_overlay
from airlock.snapshot.manifest import DATA, FileEntry

A = TypeVar("A")
B = TypeVar("B")

CHUNK_BYTES = 1 << 20
# They wait, and do not work: file systems bring files asked for together to the disk together.
_SYNC_WORKERS = 16


# What does not pass by itself: whose folder it is, and what stands in its place.
_LASTING = (
    errno.EACCES,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def in_words(error: OSError, doing: str) -> AirlockError:
    """The error of ours that says what to do about one of the file system's."""
    where = f" ({error.filename})" if error.filename else ""
    said = f"{doing}: {error.strerror or error}{where}. Nothing of it was kept, production was not "
    if error.errno in _LASTING:
        return Refused(f"{said}touched. Let this user write there, or move state_dir.")
    return Transient(f"{said}touched. Free some space, look at the disk, then do it again.")


@contextmanager
def worded(doing: str) -> Generator[None]:
    """Errors of the file system leave this block as ours."""
    try:
        yield
    except OSError as error:
        raise in_words(error, doing) from error


class _StoppedError(Exception):
    """The caller was cancelled."""


async def in_thread(work: Callable[[threading.Event], B]) -> B:
    """Run blocking work in a thread; when cancelled, tell it to stop and wait until it has."""
    stop = threading.Event()
    future = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        with suppress(Exception):
            await future
        raise


async def finished(work: Coroutine[Any, Any, B]) -> B:
    """The work's result; a cancellation waits until it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            await task
        raise


def each(work: Callable[[A], B], items: Iterable[A], workers: int) -> list[B]:
    """Every item through ``work``, several at a time; the first error ends it."""
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="airlock") as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


Stamps: TypeAlias = frozenset[tuple[str, int, int, int, int]]


def stamps(root: Path) -> Stamps:
    """Name, size, inode and times of every file: equal stamps mean that nobody wrote since."""
    names, _, _ = _walk(root)
    found: set[tuple[str, int, int, int, int]] = set()
    for name in names:
        stat = (root / name).stat()
        found.add((name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns))
    return frozenset(found)


def make_private(root: Path) -> None:
    """Modes 0600 and 0700 for everything below root."""
    names, _, folders = _walk(root)
    for name in names:
        (root / name).chmod(0o600)
    for folder in folders:
        folder.chmod(0o700)


def seal(root: Path, workers: int, stop: threading.Event) -> tuple[FileEntry, ...]:
    """Hash every file below root, and bring it onto the disk."""
    names, empty, folders = _walk(root)

    def one(name: str) -> FileEntry:
        path = root / name
        with path.open("rb") as file:
            size, sha = _digest(file.read, lambda _: None, stop)
        return FileEntry(path=name, size_bytes=size, sha256=sha)

    def sync(path: Path) -> None:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    # The disk works while the processors do.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="airlock") as beside:
        paths = [*(root / name for name in names), *folders]
        synced = beside.submit(each, sync, paths, _SYNC_WORKERS)
        entries = each(one, names, workers)
        synced.result()
    entries += [FileEntry(path=name, size_bytes=0, sha256="") for name in empty]
    return tuple(sorted(entries, key=lambda entry: entry.path))


def check(root: Path, entries: tuple[FileEntry, ...], workers: int, stop: threading.Event) -> None:
    """Every file is there, unchanged, and there are no others. Raises Refused naming one."""
    check_names(root, entries)

    def one(entry: FileEntry) -> None:
        with (root / entry.path).open("rb") as file:
            _, sha = _digest(file.read, lambda _: None, stop)
        _refuse_unless_same(root / entry.path, entry, sha)

    each(one, [entry for entry in entries if not entry.path.endswith("/")], workers)


def copy(
    root: Path,
    below: str,
    destination: Path,
    entries: tuple[FileEntry, ...],
    *,
    workers: int,
    stop: threading.Event,
) -> None:
    """A private copy of the files below root/below, checked against their entries on the way.

    Not synced: a clone that the machine loses is made again. No hard links: a server writes
    into its files.
    """
    chosen = [entry for entry in entries if entry.path.startswith(f"{below}/")]
    destination.mkdir(mode=0o700)
    folders: set[Path] = set()
    for entry in chosen:
        inside = Path(entry.path.removeprefix(f"{below}/"))
        folders.update([inside] if entry.path.endswith("/") else inside.parents)
    for folder in sorted(folders):
        (destination / folder).mkdir(mode=0o700, exist_ok=True, parents=True)

    def one(entry: FileEntry) -> None:
        goal = destination / entry.path.removeprefix(f"{below}/")
        with (
            (root / entry.path).open("rb", buffering=0) as source,
            os.fdopen(os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0) as out,
        ):
            _, sha = _digest(source.read, out.write, stop)
        _refuse_unless_same(root / entry.path, entry, sha)

    each(one, [entry for entry in chosen if not entry.path.endswith("/")], workers)


def check_names(root: Path, entries: tuple[FileEntry, ...]) -> None:
    """Names and sizes only: cheap, and finds what was truncated, removed or added."""
    names, empty, _ = _walk(root)
    found = set(names) | set(empty)
    expected = {entry.path for entry in entries}
    if missing := sorted(expected - found):
        raise _damaged(root / missing[0], "is missing")
    if extra := sorted(found - expected):
        raise _damaged(root / extra[0], "does not belong to the snapshot")
    for entry in entries:
        size = (root / entry.path).stat().st_size
        if not entry.path.endswith("/") and size != entry.size_bytes:
            raise _damaged(
                root / entry.path, f"has {size} bytes, expected {entry.size_bytes} bytes"
            )


def _refuse_unless_same(path: Path, entry: FileEntry, sha: str) -> None:
    if sha != entry.sha256:
        raise _damaged(path, f"has SHA-256 {sha[:12]}, expected {entry.sha256[:12]}")


def _damaged(path: Path, what: str) -> Refused:
    return Refused(
        f"The snapshot is damaged: {path} {what}. Do not restore from it; take a new snapshot."
    )


def _walk(root: Path) -> tuple[list[str], list[str], list[Path]]:
    """Files, empty folders (with a slash behind) and all folders below root. No manifest."""
    files: list[str] = []
    empty: list[str] = []
    folders: list[Path] = []
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        folders.append(here)
        if not inner and not names and here != root:
            empty.append(f"{here.relative_to(root).as_posix()}/")
        for name in names:
            path = here / name
            if not path.is_symlink() and path.is_file():
                files.append(path.relative_to(root).as_posix())
            else:
                raise _damaged(path, "is not a file")
        for name in inner:
            if (here / name).is_symlink():
                raise _damaged(here / name, "is a link, not a folder")
    with suppress(ValueError):
        files.remove("manifest.json")
    # Largest first keeps all workers busy to the end.
    files.sort(key=lambda name: (root / name).stat().st_size, reverse=True)
    return files, empty, folders


def _digest(
    read: Callable[[int], bytes | None], write: Callable[[bytes], object], stop: threading.Event
) -> tuple[int, str]:
    sha = hashlib.sha256()
    size = 0
    while chunk := read(CHUNK_BYTES):
        if stop.is_set():
            raise _StoppedError
        sha.update(chunk)
        write(chunk)
        size += len(chunk)
    return size, sha.hexdigest()


@contextmanager
def owned(folder: Path) -> Generator[Path]:
    """This process owns the name ``folder`` until the block ends or the process dies.

    Raises Refused when another process that is alive owns it. The folder itself may or may not
    exist; ``folder.lock`` beside it carries the lock.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _lock_path(folder)
    number = _try_lock(lock)
    if number is None:
        raise Refused(f"{folder} is in use by another process. Wait for it, or use another name.")
    try:
        yield folder
    finally:
        lock.unlink(missing_ok=True)
        os.close(number)


def sweep(parent: Path, pattern: str, remove: Callable[[Path], None]) -> tuple[str, ...]:
    """Remove what matches and has no living owner. Returns the names."""
    gone: list[str] = []
    for folder in sorted(parent.glob(pattern)):
        if folder.suffix in {".lock", ".log"}:
            continue
        with suppress(Refused), owned(folder):
            remove(folder)
            gone.append(folder.name)
    for lock in parent.glob(pattern + ".lock"):
        if not lock.with_suffix("").exists() and (number := _try_lock(lock)) is not None:
            lock.unlink(missing_ok=True)
            os.close(number)
    return tuple(gone)


@contextmanager
def shared(path: Path) -> Generator[None]:
    """While the block runs, nobody gets the file exclusively: a snapshot in use stays."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise Refused(f"{path} is not there any more. Take a new snapshot.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if not path.exists():
            raise Transient(f"{path} was removed at this moment. Choose another snapshot.")
        yield


@contextmanager
def exclusively(path: Path) -> Generator[bool]:
    """Whether nobody else uses the file at this moment; nobody will while the block runs."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
    except BlockingIOError:
        yield False


def remove_tree(folder: Path) -> None:
    """Remove the folder; what has gone meanwhile does not matter."""
    with suppress(OSError):
        release_overlay(folder / DATA)
    shutil.rmtree(folder, ignore_errors=True)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _try_lock(path: Path) -> int | None:
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last owner may have unlinked it between our open and our lock.
        if path.stat().st_ino == os.fstat(number).st_ino:
            return number
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(number)
    return None
