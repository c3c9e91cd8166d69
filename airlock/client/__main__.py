"""``python -m airlock.client TARGET DEPLOY FENCE``: the probe beside one runner of a deploy.

It ends when its standard input does, or the deploy. Exit status 0: what it saw is in the ledger.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from airlock import postgres, settings
from airlock.client import waits
from airlock.client.probe import Probe
from airlock.errors import AirlockError


async def run(target: str, deploy: int, fence: int) -> None:
    """Measure until somebody closes standard input, or the deploy is over."""
    loop, parent_gone = asyncio.get_running_loop(), asyncio.Event()
    stdin = sys.stdin.fileno()

    def heard() -> None:
        if not os.read(stdin, 64):
            loop.remove_reader(stdin)
            parent_gone.set()

    loop.add_reader(stdin, heard)
    loop.add_signal_handler(signal.SIGTERM, parent_gone.set)
    found = settings.target(target)
    await Probe(found, deploy, fence, waits.path(found, deploy, fence)).run(parent_gone)


def main() -> int:
    """Exit status 1, with one line about it, when nothing could be measured."""
    target, deploy, fence = sys.argv[1:]
    try:
        asyncio.run(run(target, int(deploy), int(fence)))
    except (AirlockError, OSError, TimeoutError, *postgres.DRIVER_ERRORS) as error:
        sys.stderr.write(f"{' '.join(str(error).split()) or type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
