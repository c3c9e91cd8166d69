"""Run one flow in this process: ``python -m flows deploy '{"target": "prod"}'``.

The command line ends here, so that ``airlock`` itself need not import Prefect. The run is a run of
the server that ``make serve`` started, of the one that PREFECT_API_URL names, or of one that lives
as long as the flow and keeps its records where ``make serve`` will show them.

``approve`` and ``reject`` answer the run that waits for a decision about a target.

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
from typing import Any, Literal

import httpx

from airlock import settings
from airlock.errors import AirlockError, Refused
from flows.runtime import Runtime, client, prefect_runtime, published_api_url
from flows.runtime.command import AUTH_VARIABLE

EXIT = {
    "Deployed": 0,
    "Refreshed": 0,
    "NothingToDo": 0,
    "Rehearsed": 0,
    "UndoneByHand": 0,
    "Refused": 1,
    "Rejected": 1,
    "Expired": 1,
    "RolledBack": 2,
    "Stranded": 3,
}


def main() -> int:
    name, parameters = sys.argv[1], json.loads(sys.argv[2])
    try:
        if name in ("approve", "reject"):
            return asyncio.run(_answer(name, parameters))
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
        from flows.refresh_staging import refresh_staging
        from flows.rollback import rollback

        flow = {"deploy": deploy, "refresh": refresh_staging, "rollback": rollback}[name]
        state = await flow(**parameters, return_state=True)
    print(f"{state.name}: {state.message or ''}".rstrip(": "))  # noqa: T201
    # A run that broke down by itself says nothing of production; a person must look.
    return EXIT.get(state.name, 3)


async def _answer(decision: Literal["approve", "reject"], parameters: dict[str, str]) -> int:
    async with _server(start=False):
        from flows.approval import answer

        target, name, reason = (parameters[key] for key in ("target", "requester", "reason"))
        print(await answer(decision, target, name, reason))  # noqa: T201
    return 0


@asynccontextmanager
async def _server(*, start: bool = True) -> AsyncIterator[None]:
    """Prefect's client speaks to the server of this checkout within the block.

    start: make one where none runs.
    """
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
    if not start:
        raise Refused(
            "No Prefect server runs here, so no run waits for an answer. Name the one that does in "
            "PREFECT_API_URL, or look: airlock status"
        )
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
            answer = await http.get("/admin/version", timeout=2)
    except httpx.HTTPError:
        return None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Refused(
            f"The Prefect server at {api_url} answers only those who know its auth string. Set "
            f"{AUTH_VARIABLE} to the one that it was started with."
        )
    if not answer.is_success:
        return None
    return Runtime(api_url=api_url, state_dir=state_dir, server_pid=0, worker_pid=None)


if __name__ == "__main__":
    sys.exit(main())
