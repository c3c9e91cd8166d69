"""Clients in a process of their own: nothing that we do makes them wait.

The process says ``ready``, goes on until its standard input closes, and says then what each of its
requests met, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.rounds import CHECKOUT

_READY = "ready"
# JSON of some ten thousand requests stands in one line.
_LINE_BYTES = 64 * 2**20


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the clients met.

    waits: of each request when it was due (monotonic, the same in every process), seconds until
        its good answer, and its kind. errors: what failed, and how often.
    """

    waits: list[tuple[float, float, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return len(self.waits) + self.failed

    @property
    def failed(self) -> int:
        return self.errors.total()

    def longest(self, kind: str = "", *, since: float = 0, until: float = float("inf")) -> float:
        """Seconds of the longest wait among the requests that were due in that time."""
        return max(
            (wait for due, wait, each in self.waits if kind in ("", each) and since <= due < until),
            default=0.0,
        )

    def said(self) -> str:
        """The errors in words; empty without any."""
        return "; ".join(f"{count} x {what}" for what, count in self.errors.most_common(3))


@asynccontextmanager
async def running(
    module: str, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncGenerator[Seen]:
    """Clients at work when the block begins; what they met is there when it has ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
        env=env,
        limit=_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seen = Seen()
    try:
        if (await process.stdout.readline()).decode().strip() != _READY:
            raise RuntimeError(f"{module} did not begin; see what it wrote above.")
        yield seen
        process.stdin.close()
        found = json.loads(await process.stdout.readline())
        seen.waits = [(due, wait, kind) for due, wait, kind in found["waits"]]
        seen.errors = Counter(found["errors"])
    finally:
        if process.returncode is None:
            process.stdin.close()
            process.kill()
        await process.wait()


async def work(
    clients: list[Callable[[Seen, asyncio.Event], Awaitable[None]]], *, at_least: int = 0
) -> None:
    """The body of such a process: every client until our standard input closes.

    at_least: so many requests are made in any case.
    """
    seen, over = Seen(), asyncio.Event()
    tasks = [asyncio.create_task(client(seen, over)) for client in clients]
    print(_READY, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    while (  # noqa: ASYNC110 – they count, and say nothing
        seen.requests < at_least and not any(task.done() for task in tasks)
    ):
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*tasks)
    print(json.dumps({"waits": seen.waits, "errors": seen.errors}), flush=True)
