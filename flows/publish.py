"""Work pool, deployments and automations on a server that runs: ``python -m flows.publish``.

For installations where systemd or compose runs the server and the workers; `make serve` does this
by itself. The server is the one that PREFECT_API_URL names. Repeat it after each upgrade.
``--automations`` applies these alone, also to the server of ``make serve``.
"""

from __future__ import annotations

import asyncio
import os
import sys

from airlock import settings
from airlock.errors import AirlockError, Refused
from flows.runtime import auth, auth_string_for, publish, published_api_url


def main() -> int:
    try:
        state_dir = settings.load().state_dir
        alone = "--automations" in sys.argv[1:]
        here = published_api_url(state_dir / "prefect") if alone else None
        api_url = os.environ.get("PREFECT_API_URL") or here
        if not api_url:
            raise Refused(
                "PREFECT_API_URL names no server. Set it, as http://127.0.0.1:4200/api"
                + ("; or start `make serve`, which applies them by itself." if alone else ".")
            )
        secret = auth_string_for(api_url)
        if secret is None:
            raise Refused(
                f"{auth.VARIABLE} is not set. Set it to the auth string that the server at "
                f"{api_url} was started with."
            )
        asyncio.run(
            publish(state_dir / "publish", api_url, auth_string=secret, automations_alone=alone)
        )
    except AirlockError as error:
        print(f"airlock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
