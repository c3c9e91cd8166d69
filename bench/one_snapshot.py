"""Back target "bench" up and restore it until a query answers: the process that is measured.

Prints one JSON object: seconds, and the peak memory of this very process in bytes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from airlock import settings, snapshot
from tests.people import connect

# An answer that takes an index and a row, and no reading of the whole table: that is not measured.
ONE_DEAL = "SELECT created_at FROM deals ORDER BY id LIMIT 1"


async def main() -> None:
    target = settings.target("bench")
    began = time.monotonic()
    taken = await snapshot.take(target, head="009_alert_notifications")
    taken_s = time.monotonic() - began
    async with (
        snapshot.restore(taken, target, name="bench") as clone,
        connect(clone.url) as conn,
    ):
        assert await conn.fetchval(ONE_DEAL)
        seconds = time.monotonic() - began
    found = {
        "seconds": seconds,
        "taken_s": taken_s,
        "bytes": taken.size_bytes,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(found))


def peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its number begins with that of whoever started us.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    asyncio.run(main())
