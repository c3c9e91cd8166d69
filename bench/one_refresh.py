"""Refresh target "staging" from the newest snapshot of "bench": the process that is measured.

Prints one JSON object: seconds of the refresh and of its steps, and its peak memory in bytes.
"""

from __future__ import annotations

import asyncio
import json
import time

from airlock import refresh
from airlock.request import RefreshRequest
from bench.one_snapshot import peak_bytes


async def main() -> None:
    began = time.monotonic()
    lease = await refresh.open_refresh(RefreshRequest(target="staging"))
    found: dict[str, float] = {}
    for step in (
        refresh.choose_snapshot,
        refresh.mask,
        refresh.migrate_copy,
        refresh.swap_databases,
        refresh.succeed,
    ):
        since = time.monotonic()
        await step(lease)
        found[step.__name__] = time.monotonic() - since
    found["seconds"] = time.monotonic() - began
    found["peak_bytes"] = peak_bytes()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
