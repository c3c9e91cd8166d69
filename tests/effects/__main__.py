"""``make effects``: run every form on every PostgreSQL found, and write what it did.

Exit status 1 when a prediction disagrees with a server.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.progress import track

from airlock import binaries, server
from airlock.binaries import Binaries
from airlock.errors import Refused
from tests.effects.forms import (
    Row,
    disagreements,
    forms,
    measure,
    prepare,
    read_table,
    write_table,
)

MAJORS = range(13, 19)


async def main() -> int:
    """Measure, compare, write. What was measured on servers that are not here stays."""
    known = read_table()
    measured = {form.text: dict(known.get(form.text, {})) for form in forms()}
    wrong = 0
    found = [each for major in MAJORS if (each := _programs(major)) is not None]
    for programs in found:
        for form, rows, said in await _measure_all(programs):
            measured[form][programs.major] = rows
            wrong += bool(said)
            for line in said:
                print(f"{programs.version}: {form}: {line}")
    here = {programs.major: programs.version for programs in found}
    versions = sorted({version for each in measured.values() for version in each})
    write_table(measured, [f"PostgreSQL {here.get(each, each)}" for each in versions])
    print(f"docs/effects.md: {len(measured)} forms, {wrong} predictions wrong")
    return int(wrong > 0)


def _programs(major: int) -> Binaries | None:
    try:
        return binaries.find(major=major)
    except Refused:
        return None


async def _measure_all(programs: Binaries) -> list[tuple[str, list[Row], list[str]]]:
    found: list[tuple[str, list[Row], list[str]]] = []
    async with _running(programs) as pg:
        await prepare(pg)
        todo = list(forms(programs.major))
        for form in track(todo, description=f"PostgreSQL {programs.version}"):
            rows, predicted = await measure(pg, form)
            found.append((form.text, rows, disagreements(predicted, rows)))
    return found


@asynccontextmanager
async def _running(programs: Binaries) -> AsyncIterator[server.Server]:
    with tempfile.TemporaryDirectory(prefix="airlock-e-") as folder:
        data = Path(folder) / "data"
        await server.initdb(programs, data)
        settings = {**server.SCRATCH_SETTINGS, "autovacuum": "off"}
        async with server.running(programs, data, settings=settings) as pg:
            yield pg


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
