"""Plain HTTP to the Prefect server, for what needs no import of Prefect."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import httpx

from airlock import settings
from airlock.authorities import authorities
from airlock.errors import Refused
from flows.runtime import auth
from flows.runtime.address import published_api_url
from flows.runtime.command import WORK_POOL, WORKER

BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1, 2, 4)
CLIENTS_VARIABLE = "PREFECT_API_AUTH_STRING"
UNFINISHED = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")


class _PatientTransport(httpx.AsyncHTTPTransport):
    """Asks again where the server says 503: its SQLite file was locked, and nothing was done."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for pause_s in BUSY_PAUSES_S:
            response = await super().handle_async_request(request)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response
            await response.aclose()
            await asyncio.sleep(pause_s)
        return await super().handle_async_request(request)


class _Admission(httpx.Auth):
    """What a server asks of its callers: its auth string, and a token with what is no GET.

    Pages of other sites can neither read such a token nor send its header, see
    PREFECT_SERVER_CSRF_PROTECTION_ENABLED. A server without that protection gives none.
    """

    def __init__(self, api_url: str, auth_string: str | None) -> None:
        self._header = auth.header(auth_string)
        self._client = str(uuid.uuid4())
        self._token_url = httpx.URL(f"{api_url}/csrf-token", params={"client": self._client})
        self._token: str | None = None

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers.update(self._header)
        if request.method == "GET":
            yield request
            return
        if self._token is None:
            await self._take((yield self._asked()))
        answer = yield self._signed(request)
        if answer.status_code == httpx.codes.FORBIDDEN:  # a token ends after an hour
            await self._take((yield self._asked()))
            yield self._signed(request)

    def _asked(self) -> httpx.Request:
        return httpx.Request("GET", self._token_url, headers=self._header)

    async def _take(self, answer: httpx.Response) -> None:
        await answer.aread()
        self._token = answer.json()["token"] if answer.is_success else None

    def _signed(self, request: httpx.Request) -> httpx.Request:
        if self._token is not None:
            request.headers["Prefect-Csrf-Token"] = self._token
            request.headers["Prefect-Csrf-Client"] = self._client
        return request


def auth_string_for(api_url: str) -> str | None:
    """What a server is told that was named by its address; our folder's string only its own."""
    environ = os.environ
    named = environ.get(CLIENTS_VARIABLE) if environ.get("PREFECT_API_URL") == api_url else None
    if given := auth.of_the_environment() or named:
        return given
    try:
        state_dir = settings.load().state_dir / "prefect"
    except Refused:  # no airlock.toml, so no folder
        return None
    is_ours = api_url.rstrip("/") == published_api_url(state_dir)
    return auth.auth_string(state_dir) if is_ours else None


def client(api_url: str, auth_string: str | None = None) -> httpx.AsyncClient:
    """A client of a server of ours, with what that asks of its callers.

    auth_string: by default the one that is known for that address.
    """
    return httpx.AsyncClient(
        base_url=api_url,
        auth=_Admission(api_url, auth_string or auth_string_for(api_url)),
        timeout=30,
        # A proxy of the environment does not know our loopback server.
        trust_env=False,
        transport=_PatientTransport(verify=authorities(of_the_environment=True)),
    )


# A run has no job variables: the server refuses them. Our worker does not follow this template, but
# another one would. It has no "env", since a run's would be merged with that.
JOB_TEMPLATE = {
    "job_configuration": {"command": "python -P -m flows.run"},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


async def create_work_pool(http: httpx.AsyncClient) -> None:
    """The pool the deployments name, with our job template, whatever it had before."""
    pool = {"name": WORK_POOL, "type": "process", "base_job_template": JOB_TEMPLATE}
    answer = await http.post("/work_pools/", json=pool)
    if answer.status_code != httpx.codes.CONFLICT:
        answer.raise_for_status()
        return
    ours = {"base_job_template": JOB_TEMPLATE}
    (await http.patch(f"/work_pools/{WORK_POOL}", json=ours)).raise_for_status()


async def limit_queue(http: httpx.AsyncClient, name: str) -> None:
    """One run at a time; the next one waits until it has ended, or pauses for an approval."""
    answer = await http.patch(
        f"/work_pools/{WORK_POOL}/queues/{name}", json={"concurrency_limit": 1}
    )
    answer.raise_for_status()


async def open_work_pool(http: httpx.AsyncClient) -> None:
    """The same, ready for a worker of ours, whatever an earlier one left."""
    await create_work_pool(http)
    answer = await http.patch(f"/work_pools/{WORK_POOL}", json={"is_paused": False})
    answer.raise_for_status()
    # An earlier worker of that name counts as online for a while after its end.
    await http.delete(f"/work_pools/{WORK_POOL}/workers/{WORKER}")


async def pause_work_pool(http: httpx.AsyncClient) -> None:
    """Runs that are started from now on wait for the next worker."""
    await http.patch(f"/work_pools/{WORK_POOL}", json={"is_paused": True})


async def has_worker(http: httpx.AsyncClient) -> bool:
    """Whether a worker has shown itself: it takes the next run that is scheduled."""
    answer = await http.post(f"/work_pools/{WORK_POOL}/workers/filter", json={})
    return any(worker["status"] == "ONLINE" for worker in answer.raise_for_status().json())


async def workers(http: httpx.AsyncClient) -> list[datetime]:
    """When each worker of the pool was last heard of."""
    answer = await http.post(f"/work_pools/{WORK_POOL}/workers/filter", json={})
    heard = (each["last_heartbeat_time"] for each in answer.raise_for_status().json())
    return [datetime.fromisoformat(at) for at in heard if at]


async def scheduled_runs(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The runs of our deployments that wait to be started, those that should have been first."""
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "work_pools": {"name": {"any_": [WORK_POOL]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()


async def occupied_queues(http: httpx.AsyncClient) -> frozenset[str]:
    """The queues in which a run has to wait until another one has ended."""
    where = f"/work_pools/{WORK_POOL}/queues/filter"
    queues = (await http.post(where, json={})).raise_for_status().json()
    begun = Counter(
        run["work_queue_name"]
        for run in await runs_of_the_worker(http)
        if run["state_type"] != "PAUSED"
    )
    return frozenset(
        queue["name"]
        for queue in queues
        if queue["concurrency_limit"] is not None
        and begun[queue["name"]] >= queue["concurrency_limit"]
    )


async def unfinished_runs(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Flow runs that have begun and not ended: the worker's, and those of the command line."""
    return await _unfinished(http, {})


async def runs_of_the_worker(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Those of them that the worker has taken."""
    return await _unfinished(http, {"work_pools": {"name": {"any_": [WORK_POOL]}}})


async def _unfinished(http: httpx.AsyncClient, further: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = {"flow_runs": {"state": {"type": {"any_": UNFINISHED}}}, **further}
    return (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()


async def close_runs(http: httpx.AsyncClient, runs: list[dict[str, Any]], why: str) -> None:
    """A run whose process is gone stays Running for ever, and keeps the next one waiting."""
    message = f"{why} `airlock status` says what was done."
    crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": message}}
    for run in runs:
        answer = await http.post(f"/flow_runs/{run['id']}/set_state", json=crashed)
        answer.raise_for_status()
