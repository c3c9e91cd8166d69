"""One question to the service, who answered it, and how long nobody did."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

from airlock.authorities import authorities
from airlock.service import Instance, table
from airlock.settings import ServiceSettings, Target

if TYPE_CHECKING:
    import httpx

GAP_INTERVAL_S = 0.02
_ACCEPT_S = 1.0
_BODY_CHARS = 300
_BAD_WORDS = frozenset(
    {"unhealthy", "error", "fail", "failed", "failing", "down", "critical", "unavailable"}
)
# Nobody's network is at fault: a kernel that was reached said that nothing serves there.
_DEFINITE = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    kind: "silent" is a timeout or a network not reached: it says nothing about the service.
    closed: the connection was refused, or ended before the answer.
    token: the instance named in the answer. accepted_by_ours: whether one of the processes asked
        about accepted the connection; None when that could not be seen.
    body: how an answer that is not good begins. Not masked.
    """

    kind: Literal["good", "bad", "silent"]
    detail: str
    token: str | None = None
    accepted_by_ours: bool | None = None
    closed: bool = False
    body: str = ""

    @property
    def is_good(self) -> bool:
        return self.kind == "good"

    def is_from(self, instance: Instance) -> bool | None:
        """Whether that instance gave it; None when the answer does not show."""
        if self.token is not None and instance.token is not None:
            return self.token == instance.token
        return self.accepted_by_ours


@asynccontextmanager
async def client() -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client with a new connection for each question and no proxy from the environment."""
    import httpx

    # It logs every URL at INFO, query string included, and a gap is measured 50 times a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, verify=authorities(), limits=limits) as opened:
        yield opened


def public_url(target: Target) -> str:
    """Where the health endpoint is for everybody."""
    if target.health.url or target.service is None:
        return target.health.url or ""
    return f"{local_base(target.service)}/health"


def path(target: Target) -> str:
    """The health endpoint's path."""
    return urlsplit(public_url(target)).path or "/health"


def local_base(service: ServiceSettings) -> str:
    """The service's own address, from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.host, service.host)  # noqa: S104
    return f"http://[{host}]:{service.port}" if ":" in host else f"http://{host}:{service.port}"


def own_url(target: Target, instance: Instance) -> str | None:
    """The health endpoint on the address that only this instance answers on."""
    if instance.probe_url is None:
        return None
    return instance.probe_url + path(target)


def shown(url: str) -> str:
    """A URL as it may be shown: no password, no query string."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


async def ask(
    http: httpx.AsyncClient,
    url: str,
    *,
    timeout_s: float,
    host: str | None = None,
    status: int | None = None,
    method: str = "GET",
    family: Callable[[], Collection[int]] | None = None,
) -> Answer:
    """One request on a new connection.

    host: the Host header, where the address is not the name the service knows itself by.
    status: what is expected; None means any 2xx.
    family: the pids that count as ours. The request is held back until the connection is accepted,
        so that the process that did it can be named.
    """
    import httpx

    seen: list[bool | None] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if family is not None and event == "connection.connect_tcp.complete":
            stream = info["return_value"]
            try:
                seen.append(await _accepted_by(stream, family, min(timeout_s, _ACCEPT_S)))
            except BaseException:
                # Nobody else owns the connection yet.
                await stream.aclose()
                raise

    try:
        async with asyncio.timeout(timeout_s + _ACCEPT_S):
            answer = await http.request(
                method,
                url,
                headers={"Connection": "close", **({"Host": host} if host else {})},
                extensions={"trace": trace},
                timeout=timeout_s,
            )
    except (httpx.TimeoutException, TimeoutError):
        return Answer(kind="silent", detail=f"no answer within {timeout_s:g} s")
    except httpx.HTTPError as error:
        return _no_answer(error)
    return _judged(answer, status, seen[0] if seen else None)


def _judged(answer: httpx.Response, status: int | None, ours: bool | None) -> Answer:
    token, word = _body(answer)
    expected = answer.status_code == status if status else answer.is_success
    detail = f"HTTP {answer.status_code}"
    if not expected:
        detail += f" instead of {status or '2xx'}"
    if word is not None:
        detail += f", status {word!r}"
    good = expected and not (status is None and word is not None and word.lower() in _BAD_WORDS)
    return Answer(
        kind="good" if good else "bad",
        detail=detail,
        token=token,
        accepted_by_ours=ours,
        body="" if good else answer.text[:_BODY_CHARS],
    )


def _body(answer: httpx.Response) -> tuple[str | None, str | None]:
    """The answering instance and its word for its state, where the answer is JSON with them."""
    if "json" not in answer.headers.get("content-type", ""):
        return None, None
    try:
        body = answer.json()
    except ValueError:
        return None, None
    if not isinstance(body, dict):
        return None, None
    facts = cast("dict[str, object]", body)
    token, word = facts.get("instance"), facts.get("status")
    return (
        token if isinstance(token, str) else None,
        word[:40] if isinstance(word, str) else None,
    )


def _no_answer(error: Exception) -> Answer:
    import httpx

    codes = {found.errno for found in _causes(error) if isinstance(found, OSError)}
    if errno.ECONNREFUSED in codes:
        said = "connection refused: nothing listens there"
        return Answer(kind="bad", detail=said, closed=True)
    if codes & _DEFINITE or isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        said = "the connection was closed without an answer"
        return Answer(kind="bad", detail=said, closed=True)
    return Answer(kind="silent", detail=f"not reached ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _causes(inner)
    if (cause := error.__cause__ or error.__context__) is not None:
        yield from _causes(cause)


async def _accepted_by(
    stream: Any, family: Callable[[], Collection[int]], wait_s: float
) -> bool | None:
    """Whether one of the family accepted this connection; None when nobody's hand is visible."""
    ends = stream.get_extra_info("client_addr"), stream.get_extra_info("server_addr")
    if not all(isinstance(end, tuple) for end in ends):
        return None
    client_end, server_end = (cast("tuple[str, int]", end)[:2] for end in ends)
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        inode = table.accepted(client_end, server_end)
        if inode is not None:
            if any(inode in table.descriptors(pid) for pid in family()):
                return True
            # Beside us: whoever measures a gap meanwhile must not wait for it.
            return False if await asyncio.to_thread(table.holders, {inode}) else None
        await asyncio.sleep(0.01)
    return None


class GapMeter:
    """Asks the public address every 20 ms and remembers the longest time without a good answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._longest_s = 0.0
        self._last_good = time.monotonic()
        self._answers = 0

    @property
    def gap_s(self) -> float:
        """So far, the present one included; the pause between two probes does not count."""
        now = time.monotonic() - self._last_good
        return round(max(0.0, max(self._longest_s, now) - GAP_INTERVAL_S), 3)

    async def settle(self, timeout_s: float) -> None:
        """Wait for two more good answers, so that a gap at the very end is seen to close."""
        wanted, until = self._answers + 2, time.monotonic() + timeout_s
        while self._answers < wanted and time.monotonic() < until:  # noqa: ASYNC110 — a clock
            await asyncio.sleep(GAP_INTERVAL_S)

    @asynccontextmanager
    async def running(self, http: httpx.AsyncClient) -> AsyncGenerator[GapMeter, None]:
        """Measure while the block runs."""
        self._last_good = time.monotonic()
        task = asyncio.create_task(self._measure(http))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _measure(self, http: httpx.AsyncClient) -> None:
        while True:
            asked = time.monotonic()
            answer = await ask(http, self._url, timeout_s=2)
            now = time.monotonic()
            if answer.is_good:
                self._longest_s = max(self._longest_s, now - self._last_good)
                self._last_good = now
                self._answers += 1
            await asyncio.sleep(max(0.001, GAP_INTERVAL_S - (now - asked)))
