"""The auth string of a Prefect server: whoever has it may start runs, and approve them.

That of the environment wins. Where it has none, the state folder keeps one that was made at random.
"""

from __future__ import annotations

import base64
import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from airlock.errors import Refused

VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
FILE = "auth-string"


def of_the_environment() -> str | None:
    """None where it is not set, or empty."""
    return os.environ.get(VARIABLE) or None


def auth_string(state_dir: Path) -> str:
    """What the server of this folder asks of its callers, as ``name:password``; made if need be.

    Raises Refused where the file that keeps it is not ours alone.
    """
    return of_the_environment() or _kept(state_dir / FILE)


def rotate(state_dir: Path) -> None:
    """Another one, for the next start. A running server keeps the one that it was started with."""
    if of_the_environment():
        raise Refused(
            f"{VARIABLE} is set, and wins over the auth string that Airlock keeps. Change it there."
        )
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _new_beside(state_dir / FILE).replace(state_dir / FILE)


def encoded(secret: str) -> str:
    """As a header carries it, and as Prefect's UI keeps it in the browser."""
    return base64.b64encode(secret.encode()).decode()


def header(secret: str | None) -> dict[str, str]:
    """The header of a request; none where the server asks for nothing."""
    return {"Authorization": f"Basic {encoded(secret)}"} if secret else {}


def _kept(path: Path) -> str:
    try:
        return _read(path)
    except FileNotFoundError:
        new = _new_beside(path)
        # A link, unlike a rename, fails where another process was first.
        with suppress(FileExistsError):
            path.hardlink_to(new)
        new.unlink()
        return _read(path)


def _new_beside(path: Path) -> Path:
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"airlock:{secrets.token_urlsafe(32)}\n")
    return new


def _read(path: Path) -> str:
    try:
        # A pipe in its place would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES):
            raise _not_ours_alone(path) from None
        raise
    with os.fdopen(descriptor, encoding="utf-8") as file:
        if not _is_ours_alone(os.fstat(descriptor)):
            raise _not_ours_alone(path)
        secret = file.read().strip()
    if not secret:
        raise Refused(f"{path} is empty. Make another auth string: airlock ui --rotate")
    return secret


def _is_ours_alone(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o77


def _not_ours_alone(path: Path) -> Refused:
    return Refused(
        f"{path} keeps the Prefect server's auth string and is not a regular file of this user "
        "with mode 0600, so others may know it. Look who made it, then make another one: "
        "airlock ui --rotate"
    )
