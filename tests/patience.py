"""How long tests wait for what must come. A machine may be as busy as it likes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

# A guard against waiting for ever, never what a test is about.
PATIENCE_S = 90.0


async def until(is_so: Callable[[], object | Awaitable[object]], *, every_s: float = 0.02) -> None:
    """Asked every moment until it is so. Raises TimeoutError when it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = is_so()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            await asyncio.sleep(every_s)
