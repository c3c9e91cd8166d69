"""Whether a server runs on a state folder, and where it answers."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from airlock.errors import Refused
from flows.runtime.process import private

API_URL_FILE = "api-url"
LOCK_FILE = "lock"
# The command line looks at the lock for less than a moment.
LOOK_S = 0.2


@contextmanager
def locked(state_dir: Path) -> Iterator[int]:
    """One server at a time on one SQLite file."""
    with private(state_dir / LOCK_FILE, "ab") as file:
        if not any(_locks(file, fcntl.LOCK_EX, after_s=pause_s) for pause_s in (0, LOOK_S)):
            url = published_api_url(state_dir)
            raise Refused(
                f"A Prefect server already runs on {state_dir}"
                f"{f' and answers at {url}' if url else ''}. End it first, or use that one."
            )
        yield file.fileno()


def _locks(file: BufferedIOBase, how: int, *, after_s: float = 0) -> bool:
    time.sleep(after_s)
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def published_api_url(state_dir: Path) -> str | None:
    """Where the server of this folder said that it answers; None when none is up.

    The server's lock says that it is: where one was killed, any user may listen by now, and would
    be told the auth string.
    """
    try:
        with (state_dir / LOCK_FILE).open("rb") as file:
            if _locks(file, fcntl.LOCK_SH):
                return None
        return (state_dir / API_URL_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


@contextmanager
def published(state_dir: Path, api_url: str) -> Iterator[None]:
    """The address, for the command line to find the server by."""
    path = state_dir / API_URL_FILE
    with private(path) as file:
        file.write(f"{api_url}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
