"""Files that others wrote or named, opened so that none can block, never end, or be a device."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

SETTINGS_BYTES = 2**20


def opened(path: Path) -> BufferedReader:
    """A regular file, open for reading. Raises OSError for anything else, without waiting."""
    number = os.open(path, _FLAGS)
    try:
        # Of what is open, not of what had the name a moment ago.
        kind = stat.S_IFMT(os.fstat(number).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no file')}, not a file", path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read(path: Path, *, most: int) -> bytes:
    """All of a regular file. Raises OSError, also where it has more bytes than ``most``."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MiB", path)
    return content
