"""``make effects``: run every form on every PostgreSQL found, and write what it did."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from airlock import binaries, server
from airlock.errors import Refused
from tests.effects.forms import TABLE, Row, forms, measure, prepare

MAJORS = [int(x) for x in sys.argv[2:]] or range(13, 19)


def agrees(predicted, measured):
    known = [row for row in predicted if row[0] is not None]
    by = {row[0]: row for row in measured}
    if len(known) == len(predicted) and len(known) != len(measured):
        return False
    return all(
        row[0] in by and all(a is None or a == b for a, b in zip(row, by[row[0]])) for row in known
    )


async def main() -> int:
    found: dict[str, dict[str, list[Row]]] = {form.text: {} for form in forms()}
    failed = 0
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for major in MAJORS:
        try:
            programs = binaries.find(major=major)
        except Refused:
            continue
        print(f"PostgreSQL {programs.version}")
        with tempfile.TemporaryDirectory(prefix="airlock-e-") as folder:
            data = Path(folder) / "data"
            await server.initdb(programs, data)
            settings = {**server.SCRATCH_SETTINGS, "autovacuum": "off"}
            async with server.running(programs, data, settings=settings) as pg:
                await prepare(pg)
                for form in forms():
                    if not form.exists_in(major) or only not in form.text:
                        continue
                    try:
                        measured, predicted = await measure(pg, form)
                        found[form.text][str(major)] = measured
                        if not agrees(predicted, measured):
                            failed += 1
                            print(f"  {form.text}")
                            for row in predicted:
                                if row not in measured:
                                    print("     predicted", *row)
                            for row in measured:
                                if row not in predicted:
                                    print("     measured ", *row)
                    except Exception as error:
                        failed += 1
                        import traceback

                        print(
                            f"  {form.text}\n    {error!r}",
                            *traceback.format_exc().splitlines()[-4:],
                        )
    Path("/tmp/table.json").write_text(json.dumps(found, indent=0))
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
