"""Run one flow in this process: ``python -m flows deploy '{"target": "prod"}'``.

The command line ends here, so that ``airlock`` itself need not import Prefect. The run is a run of
the server that ``make serve`` started, of the one that PREFECT_API_URL names, or of one that lives
as long as the flow and keeps its records where ``make serve`` will show them.

Exit status: 0 done, 1 refused, 2 rolled back, 3 stranded.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from airlock import settings
from airlock.errors import AirlockError
from flows.runtime import Runtime, client, prefect_runtime, published_api_url

EXIT = {
    "Deployed": 0,
    "NothingToDo": 0,
    "Rehearsed": 0,
    "UndoneByHand": 0,
    "Refused": 1,
    "RolledBack": 2,
    "Stranded": 3,
}


def main() -> int:
    name, parameters = sys.argv[1], json.loads(sys.argv[2])
    try:
        return asyncio.run(_run(name, parameters))
    except AirlockError as error:
        print(f"airlock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        target = parameters.get("target")
        print(  # noqa: T201
            f"airlock: interrupted. Where it stands: airlock status {target}. "
            f"To undo what was done: airlock rollback {target}",
            file=sys.stderr,
        )
        return 130


async def _run(name: str, parameters: dict[str, Any]) -> int:
    async with _server():
        from flows.deploy import deploy
        from flows.rollback import rollback

        flow = {"deploy": deploy, "rollback": rollback}[name]
        state = await flow(**parameters, return_state=True)
    print(f"{state.name}: {state.message or ''}".rstrip(": "))  # noqa: T201
    # A run that broke down by itself says nothing of production; a person must look.
    return EXIT.get(state.name, 3)


@asynccontextmanager
async def _server() -> AsyncIterator[None]:
    """Prefect's client speaks to the server of this checkout within the block."""
    if "PREFECT_API_URL" in os.environ:
        yield
        return
    state_dir = settings.load().state_dir / "prefect"
    # Before Prefect is imported, which makes a folder in the home of whoever runs this.
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.setdefault("PREFECT_HOME", str(state_dir))
    running = await _running(state_dir)
    if running is not None:
        with running.as_current():
            yield
        return
    print("Starting a Prefect server for this run; `make serve` keeps one.", flush=True)  # noqa: T201
    async with prefect_runtime(state_dir, port=0, worker=False) as runtime:
        with runtime.as_current():
            yield


async def _running(state_dir: Path) -> Runtime | None:
    api_url = published_api_url(state_dir)
    if api_url is None:
        return None
    try:
        async with client(api_url) as http:
            answers = (await http.get("/health", timeout=2)).is_success
    except httpx.HTTPError:
        return None
    if not answers:
        return None
    return Runtime(api_url=api_url, state_dir=state_dir, server_pid=0, worker_pid=None)


if __name__ == "__main__":
    sys.exit(main())
