"""squawk, the peer for linting: a compiled linter of PostgreSQL migrations.

https://github.com/sbdchd/squawk; installed on demand, never part of requirements.lock.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench.rounds import PLACE, program

PACKAGE = "squawk-cli"


async def find() -> Path:
    """The program: on PATH, or installed on demand. Raises RuntimeError when pip cannot."""
    if found := shutil.which("squawk"):
        return Path(found)
    # Of its own: pip leaves a bin folder that is there as it is.
    place = PLACE / "peers" / "squawk"
    path = place / "bin" / "squawk"
    if not path.is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        await program([*pip, "--target", str(place), PACKAGE])
    return path
