"""Work pool, deployments and automations on a server that runs: ``python -m flows.publish``.

For installations where systemd or compose runs the server and the workers; `make serve` does this
by itself. The server is the one that PREFECT_API_URL names. Repeat it after each upgrade.
"""

from __future__ import annotations

import asyncio
import os
import sys

from airlock import settings
from airlock.errors import AirlockError, Refused
from flows.runtime import publish


def main() -> int:
    try:
        api_url = os.environ.get("PREFECT_API_URL")
        if not api_url:
            raise Refused("PREFECT_API_URL names no server. Set it, as http://127.0.0.1:4200/api")
        asyncio.run(publish(settings.load().state_dir / "publish", api_url))
    except AirlockError as error:
        print(f"airlock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
