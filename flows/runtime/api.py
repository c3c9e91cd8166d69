"""Plain HTTP to the Prefect server, for what needs no import of Prefect."""

from __future__ import annotations

import asyncio

import httpx

from flows.runtime.command import WORK_POOL, WORKER, authorization

BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1, 2, 4)


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


def client(api_url: str) -> httpx.AsyncClient:
    """A client of a server of ours, with what that asks of its callers."""
    return httpx.AsyncClient(
        base_url=api_url,
        headers=authorization(),
        timeout=30,
        # A proxy of the environment does not know our loopback server.
        trust_env=False,
        transport=_PatientTransport(),
    )


async def create_work_pool(http: httpx.AsyncClient) -> None:
    """The pool the deployments name. Its job template is filled in by the worker."""
    answer = await http.post("/work_pools/", json={"name": WORK_POOL, "type": "process"})
    if answer.status_code != httpx.codes.CONFLICT:
        answer.raise_for_status()


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


async def runs_of_the_worker(http: httpx.AsyncClient) -> list[dict[str, str]]:
    """Flow runs that the worker has taken and that have not ended."""
    states = ["PENDING", "RUNNING", "PAUSED", "CANCELLING"]
    taken = {"flow_runs": {"state": {"type": {"any_": states}}}}
    taken |= {"work_pools": {"name": {"any_": [WORK_POOL]}}}
    return (await http.post("/flow_runs/filter", json=taken)).raise_for_status().json()


async def close_runs_of_a_dead_worker(http: httpx.AsyncClient) -> None:
    """A run that outlived its worker stays Running for ever and keeps the next one waiting."""
    message = "The worker ended during this run. `airlock status` says what was done."
    crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": message}}
    for run in await runs_of_the_worker(http):
        answer = await http.post(f"/flow_runs/{run['id']}/set_state", json=crashed)
        answer.raise_for_status()
