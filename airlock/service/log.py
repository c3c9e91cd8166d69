"""What the service wrote, and how much of it may be shown."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airlock import files, record
from airlock.errors import Refused
from airlock.service import LogMark
from airlock.settings import Target, env_values
from airlock.visible import visible

_READ_BYTES = 4 * 2**20
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ERROR_LINE = re.compile(
    r"""\b(ERROR|CRITICAL|FATAL)\b
    |^Traceback\ \(most\ recent\ call\ last\)
    |\blevel"?\s*[=:]\s*"?(error|critical|fatal)\b""",
    re.VERBOSE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# CREATE ROLE and the like; the end may have been cut off.
_LITERAL = re.compile(r"""(\bPASSWORD\s+)(E|U&)?'([^'\n]|'')*'?""", re.IGNORECASE)
_QUERY = re.compile(r"(\w+://[^\s?]+|\s/[^\s?]*)\?\S+")


def path(target: Target, token: str) -> Path:
    """Where the instance of that token writes; its folder is made, readable by nobody else."""
    if not _TOKEN.fullmatch(token):
        raise Refused(
            f"An instance's token is a file name of letters, digits, '.', '_' and '-'; "
            f"found {token!r}. Choose another."
        )
    folder = private(target.service_dir / "logs")
    return folder / f"{token}.log"


def private(folder: Path) -> Path:
    """The folder, made if needed, for nobody else to read."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def mark(file: Path) -> LogMark:
    """The file as long as it is now."""
    try:
        return LogMark(path=file, offset=file.stat().st_size)
    except OSError:
        return LogMark(path=file)


def since(found: LogMark) -> list[str]:
    """The complete lines written after the mark, the last few megabytes of them."""
    try:
        with files.opened(found.path) as file:
            size = os.fstat(file.fileno()).st_size
            # Shorter than the mark: it was rotated, and all of it is new.
            start = found.offset if found.offset <= size else 0
            file.seek(max(start, size - _READ_BYTES))
            return file.read(_READ_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []


def error_lines(lines: Iterable[str]) -> list[str]:
    """Those that say ERROR or worse, or begin a traceback."""
    return [line for line in lines if _ERROR_LINE.search(line)]


def tail(target: Target, found: Iterable[LogMark], lines: int = 15) -> str:
    """The last lines an instance wrote, secrets masked, ready for an error message."""
    text = "\n".join(line for each in found for line in since(each)[-lines:])
    return mask(target, text).strip()[-3000:] or "(it wrote nothing)"


def mask(target: Target, text: str) -> str:
    """The text as it may be shown and stored.

    That is without passwords in URLs and statements, query strings, and the values of secret
    variables.
    """
    secrets = sorted(_secrets(target), key=len, reverse=True)
    text = _without(secrets, text)
    text = _LITERAL.sub(r"\1'***'", _CREDENTIALS.sub("***", text))
    text = _QUERY.sub(r"\1?***", text)
    # What was cut out may have brought the pieces of another one together.
    return visible(record.storable(_without(secrets, text)))


def _without(secrets: Iterable[str], text: str) -> str:
    while found := [secret for secret in secrets if secret in text]:
        text = text.replace(found[0], "***")
    return text


def _secrets(target: Target) -> set[str]:
    service = target.service
    names = ("PGPASSWORD", *target.secret_variables, *(service.env if service else ()))
    found = {os.environ.get(name, "") for name in names}
    for file in target.env_files:
        # What cannot be read has told nobody its values either. What others may read, too, is
        # still to be hidden here.
        with contextlib.suppress(Refused):
            found |= set(env_values(file).values())
    # APP_ENV may have it, and it stands in every message.
    found.discard(target.name)
    found |= {part for value in found for part in _parts(value)}
    # Short values are ports and flags: masking every "1" would leave nothing to read.
    return {value for value in found if len(value) >= 6}


def _parts(url: str) -> Iterator[str]:
    """What is secret in a URL by itself: its password, and a path that holds a token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if password := parts.password:
        yield from (password, unquote(password))
    if parts.scheme in ("http", "https"):
        yield parts.path.strip("/")
