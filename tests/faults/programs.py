"""PostgreSQL's programs that misbehave, disks that are full, folders that cannot be written."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

from airlock import binaries
from tests.faults.theatre import Case, Theatre

# What a stand-in does instead of the program, "$REAL".
_STAND_INS = {
    "hangs": 'touch "$STARTED"; exec sleep 600',
    "floods its errors and fails": "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1",
    "floods its errors": 'head -c 1000000 /dev/zero | tr \'\\0\' x >&2; exec "$REAL" "$@"',
    "says 0 and writes nothing": "exit 0",
    "crashes": "kill -SEGV $$",
    "crashes at its end": '"$REAL" "$@"; kill -SEGV $$',
}
_LOGICAL = ("pg_dump", "pg_restore")
# Those who look for programs ask each for its version. Nothing of our environment comes through.
_SCRIPT = """\
#!/bin/sh
REAL={real}
STARTED={started}
case "$1" in --version) exec "$REAL" "$@";; esac
{does}
"""


def cases() -> Iterator[Case]:
    for program in ("pg_basebackup", *_LOGICAL):
        for said, does in _STAND_INS.items():
            yield Case(
                name=f"{program} {said} / instead of it",
                fault=f"{program} {said}",
                where=f"forwards, {'rehearse' if program == 'pg_restore' else 'take_snapshot'}",
                play=partial(_with_stand_in, program, does),
            )


async def _with_stand_in(program: str, does: str, theatre: Theatre) -> None:
    """Refused, or deployed where it only complains. Who waits for one that hangs loses patience."""
    found = binaries.find()
    folder = theatre.folder / "programs"
    folder.mkdir()
    for each in found.directory.iterdir():
        (folder / each.name).symlink_to(each)
    started = theatre.folder / "started"
    (folder / program).unlink()
    (folder / program).write_text(
        _SCRIPT.format(real=found.tool(program), started=started, does=does), encoding="utf-8"
    )
    (folder / program).chmod(0o755)
    theatre.also["PG_BIN"] = str(folder)
    if program in _LOGICAL:
        # A role that may not replicate is backed up the other way.
        theatre.also["PROD_REPLICATION_URL"] = os.environ["PROD_DATABASE_URL"]
    child = await theatre.start("deploy", release="v2")
    if "STARTED" in does:
        await theatre.until(started.exists)
        os.kill(child.pid, signal.SIGTERM)
    await child.wait()
    del theatre.also["PG_BIN"]
    theatre.also.pop("PROD_REPLICATION_URL", None)
