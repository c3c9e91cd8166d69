"""What one instance on the clone answers and logs: the questions of the health check, once each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airlock.pairing import Endpoint, Pair
from airlock.request import Gate
from airlock.service import Instance, LogMark, configured, log, probe
from airlock.service.probe import Answer
from airlock.settings import Smoke, Target

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.05
# A machine with two more services to start may be slow for a moment.
_TRIES = 3
# A process that ends closes its sockets first, and is gone a moment later.
_ENDING_S = 0.5
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One instance, and how it is asked.

    target: production's. here: the same with the address of the instance, which is its alone.
    """

    target: Target
    here: Target
    instance: Instance
    http: httpx.AsyncClient
    skip: Collection[Gate]

    async def all(self, pair: Pair) -> Pair:
        """The pair with what was seen: until it is ready, each endpoint, its log."""
        ready_s, failure = await self._ready()
        if failure:
            return replace(pair, failure=self._with_log(failure))
        asked = () if "smoke" in self.skip else self.here.health.smoke
        endpoints = [await self._endpoint(each) for each in asked if self.instance.is_alive]
        failure = "" if self.instance.is_alive else self._with_log("it ended")
        return replace(
            pair,
            ready_s=ready_s,
            endpoints=tuple(endpoints),
            failure=failure,
            log_error=self._log_error(self.instance.logs),
        )

    async def _ready(self) -> tuple[float, str]:
        """Seconds until the first good answer, and why there was none."""
        limit_s, begun, last = configured(self.here).ready_s, time.monotonic(), "none"
        while (waited_s := time.monotonic() - begun) < limit_s:
            answer = await self._health()
            waited_s = time.monotonic() - begun
            # One that answers and ends in the same moment is not ready.
            if not self.instance.is_alive:
                return waited_s, f"it ended {waited_s:.1f} s after its start"
            if answer is not None and answer.is_good:
                return round(waited_s, 3), ""
            if answer is not None:
                last = _told(answer)
            await asyncio.sleep(_POLL_S)
        return waited_s, f"it was not ready within {limit_s:g} s; last answer: {last}"

    async def _health(self) -> Answer | None:
        """One answer; None where the instance ends before it gives one."""
        url, timeout_s = probe.public_url(self.here), self.here.health.timeout_s
        asking = asyncio.ensure_future(
            probe.ask(self.http, url, timeout_s=timeout_s, host=self._host)
        )
        try:
            while not asking.done() and self.instance.is_alive:
                await asyncio.wait((asking,), timeout=_POLL_S)
            return asking.result() if asking.done() else None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _endpoint(self, smoke: Smoke) -> Endpoint:
        path = smoke.path if smoke.path.startswith("/") else f"/{smoke.path}"
        answer = await self._insist(smoke, path)
        until = time.monotonic() + (_ENDING_S if answer.closed else 0)
        while self.instance.is_alive and time.monotonic() < until:  # noqa: ASYNC110 – a clock
            await asyncio.sleep(_POLL_S)
        return Endpoint(
            name=f"{smoke.method} {path.partition('?')[0]}",
            ok={"good": True, "bad": False, "silent": None}[answer.kind],
            detail=self._shown(_told(answer)),
        )

    async def _insist(self, smoke: Smoke, path: str, tries: int = _TRIES) -> Answer:
        answer = await probe.ask(
            self.http,
            f"{probe.local_base(configured(self.here))}{path}",
            timeout_s=self.here.health.timeout_s,
            host=self._host,
            status=smoke.status,
            method=smoke.method,
        )
        again = answer.kind == "silent" and tries > 1 and self.instance.is_alive
        return await self._insist(smoke, path, tries - 1) if again else answer

    @property
    def _host(self) -> str:
        """As the service is called in production; some answer to nothing else."""
        return urlsplit(probe.public_url(self.target)).netloc.rpartition("@")[2]

    def _log_error(self, marks: Iterable[LogMark]) -> str:
        errors = [line for each in marks for line in log.error_lines(log.since(each))]
        tolerated = "log_errors" in self.skip or len(errors) <= self.target.health.max_log_errors
        return "" if tolerated else self._shown(errors[0].strip()[:_SHOWN_CHARS])

    def _with_log(self, failure: str) -> str:
        lines = log.tail(self.target, self.instance.logs)
        return self._shown(f"{failure}. Its last lines:\n{lines}")

    def _shown(self, text: str) -> str:
        return log.mask(self.target, text)


def _told(answer: Answer) -> str:
    return f"{answer.detail}: {answer.body}" if answer.body else answer.detail
