"""How long clients wait at this moment, from the probe to whoever asks on the same machine.

A file of lines, ten in a second: the moment by the monotonic clock, which one boot has in common,
and the longest wait in ms that ended since the line before or is still going on. It goes with the
probe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from airlock.settings import Target

# A probe that is silent for so long is gone, or stopped.
STALE_S = 2.0
_LINE_BYTES = 32
_MOST_BYTES = 256 * 1024


def path(target: Target, deploy: int, fence: int) -> Path:
    """The file of the probe beside one runner."""
    return _folder(target) / f"{deploy}-{fence}.waits"


def _folder(target: Target) -> Path:
    return target.state_dir / target.name / "client"


@contextmanager
def writing(file: Path) -> Generator[Callable[[float, float], None]]:
    """A function that appends a line: the moment, and the wait in ms. The file is the owner's."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One probe at a time: what lies there was left by one that was killed, or is ending.
    for left in file.parent.glob("*.waits"):
        left.unlink(missing_ok=True)
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(now: float, ms: float) -> None:
        if os.fstat(number).st_size > _MOST_BYTES:
            os.ftruncate(number, 0)
        os.write(number, f"{now:.3f} {ms:.1f}\n".encode())

    try:
        yield write
    finally:
        os.close(number)
        file.unlink(missing_ok=True)


def recent(target: Target, deploy: int, *, within_s: float = 5.0) -> float | None:
    """The longest wait, in ms, of a client of the target in the last seconds, or until now.

    None where no probe of that deploy runs on this machine.
    """
    files = _folder(target).glob(f"{deploy}-*.waits")
    newest = max(files, key=lambda each: int(each.stem.partition("-")[2]), default=None)
    if newest is None:
        return None
    try:
        with newest.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            wanted = int((within_s + STALE_S) * 10 + 10) * _LINE_BYTES
            file.seek(max(0, size - wanted))
            text = file.read().decode("ascii", "replace")
    except OSError:
        return None
    now, found = time.monotonic(), list[tuple[float, float]]()
    # The first line may be cut, and so may the last.
    for line in text[: text.rfind("\n") + 1].splitlines():
        at, _, ms = line.partition(" ")
        try:
            found.append((float(at), float(ms)))
        except ValueError:
            continue
    # A first line that was cut is a moment long ago, as the last digits of one are.
    lately = [ms for at, ms in found if now - within_s <= at <= now]
    is_alive = bool(found) and now - found[-1][0] <= STALE_S
    return max(lately, default=0.0) if is_alive else None
