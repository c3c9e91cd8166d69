"""Light read and write load on the service, and a record of all it was promised."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import asyncpg

REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request without a good answer. There are no second tries."""

    method: str
    path: str
    client: str
    error: str
    at_s: float  # since the traffic began


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A row whose writing the service has acknowledged, as it should stand in the database."""

    table: str
    id: str
    content: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficReport:
    """What the clients saw."""

    seconds: float
    sent: int
    failures: tuple[Failure, ...]
    longest_read_s: float
    longest_write_s: float
    writes: tuple[Write, ...]

    @property
    def failed(self) -> int:
        return len(self.failures)


class Traffic:
    """Clients that read and write until they are stopped.

    Half of them keep their connection, the other half open one for each request.
    """

    def __init__(
        self, base_url: str, *, clients: int = 8, requests_per_s: float = 80, seed: int = 1
    ) -> None:
        self._base_url = base_url
        self._clients = clients
        self._pause_s = clients / requests_per_s
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._began_at = time.monotonic()
        self._ended_at: float | None = None
        self._sent = 0
        self._failures: list[Failure] = []
        self._longest = {"read": 0.0, "write": 0.0}
        self._writes: dict[str, Write] = {}

    async def start(self) -> None:
        """Begin. Returns at once."""
        self._began_at = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._client(n), name=f"traffic {n}") for n in range(self._clients)
        ]

    async def stop(self) -> TrafficReport:
        """Let every client finish its request; what they saw."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self._ended_at = self._ended_at or time.monotonic()
        return self.report()

    def report(self) -> TrafficReport:
        """What the clients have seen so far."""
        return TrafficReport(
            seconds=(self._ended_at or time.monotonic()) - self._began_at,
            sent=self._sent,
            failures=tuple(self._failures),
            longest_read_s=self._longest["read"],
            longest_write_s=self._longest["write"],
            writes=tuple(self._writes.values()),
        )

    async def _client(self, number: int) -> None:
        keeps = number % 2 == 0
        client = httpx.AsyncClient(
            base_url=self._base_url,
            timeout=REQUEST_TIMEOUT_S,
            limits=httpx.Limits(max_keepalive_connections=1 if keeps else 0),
            headers={} if keeps else {"Connection": "close"},
            # Neither proxies nor certificates: both cost time, and the service is on this machine.
            trust_env=False,
            verify=False,  # noqa: S501
        )
        async with client:
            kind = "keep-alive" if keeps else "new"
            await _Client(self, client, kind, f"{self._seed}-{number}").run()

    # ---------------------------------------------------------------- what a client reports

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def rest(self, rng: random.Random) -> None:
        """Between two requests: somewhat irregular, and over at once when the traffic stops."""
        pause_s = self._pause_s * rng.uniform(0.5, 1.5)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause_s)

    def answered(self, kind: str, seconds: float) -> None:
        self._sent += 1
        self._longest[kind] = max(self._longest[kind], seconds)

    def failed(self, *, method: str, path: str, client: str, error: str) -> None:
        at_s = round(time.monotonic() - self._began_at, 3)
        self._failures.append(
            Failure(method=method, path=path, client=client, error=error, at_s=at_s)
        )

    def acknowledged(self, write: Write) -> None:
        self._writes[write.id] = write

    def doubtful(self, key: str, column: str) -> None:
        """A change that may or may not have reached the database is no promise."""
        if write := self._writes.get(key):
            kept = tuple(pair for pair in write.content if pair[0] != column)
            self._writes[key] = replace(write, content=kept)


class _Client:
    """One client: mostly reads, some writes."""

    def __init__(self, traffic: Traffic, client: httpx.AsyncClient, kind: str, name: str) -> None:
        self._traffic = traffic
        self._client = client
        self._kind = kind
        self._name = name
        self._rng = random.Random(name)  # noqa: S311 - load, not secrets
        self._seen: list[str] = []
        self._own: str | None = None
        self._count = 0

    async def run(self) -> None:
        actions = [self._list_deals, self._read_deal, self._read_deal, self._list_alerts]
        actions += [self._add_deal, self._change_deal, self._add_alert]
        while not self._traffic.stopping:
            await self._rng.choice(actions)()
            await self._traffic.rest(self._rng)

    async def _list_deals(self) -> None:
        answer = await self._request("GET", "/deals", params={"limit": 20})
        if answer is not None:
            self._seen = [deal["id"] for deal in answer]

    async def _read_deal(self) -> None:
        if not self._seen:
            await self._list_deals()
        else:
            await self._request("GET", f"/deals/{self._rng.choice(self._seen)}")

    async def _list_alerts(self) -> None:
        await self._request("GET", "/alerts", params={"limit": 20})

    async def _add_deal(self) -> None:
        self._count += 1
        content = {
            "acquirer_name": f"Buyer {self._name}",
            "target_name": f"Target {self._name} number {self._count}",
            "offer_price": f"{self._rng.randrange(100, 99999) / 100:.4f}",
            "announced_on": "2025-09-08",
        }
        answer = await self._request("POST", "/deals", json=content)
        if answer is not None:
            self._own = answer["id"]
            self._seen.append(answer["id"])
            self._promise("deals", answer["id"], content)

    async def _change_deal(self) -> None:
        if self._own is None:
            await self._add_deal()
            return
        price = f"{self._rng.randrange(100, 99999) / 100:.4f}"
        key = self._own
        answer = await self._request("PATCH", f"/deals/{key}", json={"offer_price": price})
        if answer is None:
            self._traffic.doubtful(key, "offer_price")
            return
        names = ("acquirer_name", "target_name", "offer_price", "announced_on")
        self._promise("deals", key, {name: answer[name] for name in names})

    async def _add_alert(self) -> None:
        if self._own is None:
            await self._add_deal()
            return
        self._count += 1
        content = {"deal_id": self._own, "message": f"Alert {self._name} number {self._count}"}
        answer = await self._request("POST", "/alerts", json=content)
        if answer is not None:
            self._promise("alerts", answer["id"], content)

    def _promise(self, table: str, key: str, content: dict[str, str]) -> None:
        self._traffic.acknowledged(Write(table=table, id=key, content=tuple(content.items())))

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON, or None for a failure, which is reported."""
        kind = "read" if method == "GET" else "write"
        began_at = time.monotonic()
        error = None
        answer = None
        try:
            response = await self._client.request(method, path, **options)
            if response.is_success:
                answer = response.json()
            else:
                error = f"HTTP {response.status_code}: {response.text[:200]}"
        except (httpx.HTTPError, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        self._traffic.answered(kind, time.monotonic() - began_at)
        if error is not None:
            self._traffic.failed(method=method, path=path, client=self._kind, error=error)
        return answer


async def lost(conn: asyncpg.Connection[Any], writes: Sequence[Write]) -> tuple[Write, ...]:
    """The acknowledged writes that are not in the database as they were acknowledged."""
    deals = """
        SELECT id::text, acquirer_name, target_name, offer_price::text, announced_on::text
        FROM deals WHERE id = ANY ($1::uuid[])"""
    alerts = "SELECT id::text, deal_id::text, message FROM alerts WHERE id = ANY ($1::uuid[])"
    found: dict[str, asyncpg.Record] = {}
    for query in (deals, alerts):
        rows = await conn.fetch(query, [write.id for write in writes])
        found |= {row["id"]: row for row in rows}
    return tuple(
        write
        for write in writes
        if write.id not in found
        or any(found[write.id][name] != value for name, value in write.content)
    )
