"""A block that something outside of it can end."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Scope:
    """Runs a block until it ends, or until ``end`` is called: the block then raises that error.

    Whatever the block waits for is cancelled, as by a timeout, and clears up after itself.
    """

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._error: Exception | None = None

    def end(self, error: Exception) -> None:
        """End the block with this error; the first one counts."""
        if self._error is None:
            self._error = error
            self._timeout.reschedule(0)  # long ago: at once

    async def __aenter__(self) -> Scope:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._error is not None:
                raise self._error from None
            raise
        # What it was cancelled in may have failed over that.
        if self._error is not None and isinstance(error, Exception):
            raise self._error from error
