"""Run one flow in this process: ``python -m flows deploy '{"target": "prod"}'``.

The command line ends here, so that ``airlock`` itself need not import Prefect. The run is a run of
the server that ``make serve`` started, of the one that PREFECT_API_URL names, or of one that lives
as long as the flow and keeps its records where ``make serve`` will show them.

``approve`` and ``reject`` answer the run that waits for a decision about a target.

Exit status: 0 done, 1 refused, 2 rolled back, 3 stranded, or it is not known.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NoReturn

import httpx

from airlock import holder, ledger, settings
from airlock.errors import AirlockError, Refused
from airlock.visible import visible
from flows.runtime import auth, auth_string_for, prefect_runtime, running
from flows.runtime.command import check_ui_url

EXIT = {
    "Deployed": 0,
    "Refreshed": 0,
    "NothingToDo": 0,
    "Rehearsed": 0,
    "UndoneByHand": 0,
    "Recovered": 0,
    "NothingToRecover": 0,
    "Refused": 1,
    "Rejected": 1,
    "Expired": 1,
    "NotReached": 1,
    "NotRecovered": 1,
    "Cancelled": 1,
    "RolledBack": 2,
    "Stranded": 3,
    "TakenOver": 3,
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
        print(f"airlock: interrupted. {_what_now(parameters['target'])}", file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:  # noqa: BLE001 – what the flow raises is a state; this is Prefect's
        traceback.print_exception(error)
        _end_at_once(asyncio.run(_outcome(name, parameters["target"])))


def _what_now(target: str | None) -> str:
    of = f" {target}" if target else ""
    return f"Where it stands: airlock status{of}. To bring it to an end: airlock recover{of}"


async def _outcome(name: str, target: str | None) -> int:
    """The exit status of a run that Prefect lost, from the ledger, if the run came that far."""
    row = await _row_of_this_process(target)
    status = None if row is None else _status_of(name, row)
    if row is None or status is None:
        print(  # noqa: T201
            f"airlock: Prefect was lost, and the ledger does not say how the {name} ended. "
            + _what_now(target),
            file=sys.stderr,
        )
        return 3
    print(f"{visible(row.headline)}. So says the ledger; Prefect was lost before.")  # noqa: T201
    return status


def _end_at_once(status: int) -> NoReturn:
    """Prefect's threads would go on for minutes to tell a server that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _row_of_this_process(target: str | None) -> ledger.Deploy | None:
    if target is None:
        return None  # of all of them
    try:
        async with ledger.connection(settings.target(target)) as conn:
            rows = await ledger.recent(conn)
    except (AirlockError, OSError):
        return None
    return next((row for row in rows if row.holder == holder.name()), None)


def _status_of(name: str, row: ledger.Deploy) -> int | None:
    """None: it is under way."""
    if name in ("rollback", "recover"):  # what had touched nothing has failed
        came = {"rolled_back": 0, "failed": 0, "stranded": 3}
        return (came if name == "rollback" else {**came, "succeeded": 0}).get(row.state)
    refused = 0 if row.failure is None else 1  # a dry run ends as failed without a failure
    return {"succeeded": 0, "failed": refused, "rolled_back": 2, "stranded": 3}.get(row.state)


async def _run(name: str, parameters: dict[str, Any]) -> int:
    async with _server():
        from flows.deploy import deploy
        from flows.recover import recover
        from flows.refresh_staging import refresh_staging
        from flows.rollback import rollback

        flow = {
            "deploy": deploy,
            "refresh": refresh_staging,
            "rollback": rollback,
            "recover": recover,
        }[name]
        state = await flow(**parameters, return_state=True)
    print(visible(f"{state.name}: {state.message or ''}".rstrip(": ")))  # noqa: T201
    # A run that broke down by itself says nothing of production; a person must look.
    return EXIT.get(state.name, 3)


async def _answer(decision: Literal["approve", "reject"], parameters: dict[str, str]) -> int:
    async with _server(start=False):
        from flows.approval import answer

        target, name, reason = (parameters[key] for key in ("target", "requester", "reason"))
        print(visible(await answer(decision, target, name, reason)))  # noqa: T201
    return 0


@asynccontextmanager
async def _server(*, start: bool = True) -> AsyncIterator[None]:
    """Prefect's client speaks to the server of this checkout within the block.

    start: make one where none runs.
    """
    check_ui_url()
    if api_url := os.environ.get("PREFECT_API_URL"):
        if secret := auth_string_for(api_url):
            os.environ.setdefault("PREFECT_API_AUTH_STRING", secret)
        await _refuse_unless_answered(api_url)
        yield
        return
    state_dir = settings.load().state_dir / "prefect"
    # Before Prefect is imported, which makes a folder in the home of whoever runs this.
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.setdefault("PREFECT_HOME", str(state_dir))
    found = await running(state_dir)
    if found is not None:
        with found.as_current():
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


async def _refuse_unless_answered(api_url: str) -> None:
    """By Prefect's client, which has whatever that server asks of its callers."""
    from prefect import get_client

    try:
        async with get_client() as prefect:
            await prefect.hello()
    except httpx.HTTPStatusError as error:
        if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise Refused(
                f"The Prefect server at {api_url} answered {error.response.status_code}: it wants "
                f"another auth string. Set {auth.VARIABLE} to the one that it was started with. "
                "Nothing was started."
            ) from None
    except httpx.HTTPError as error:
        raise Refused(
            f"No Prefect server answers at {api_url} ({type(error).__name__}). Start it, or unset "
            "PREFECT_API_URL: a server is then started for the run. Nothing was started."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
