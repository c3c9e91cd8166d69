"""Somebody asks the run to end: Ctrl-C, SIGTERM, or Cancel in Prefect's UI.

The work is stopped where it is, and what was begun is taken back. That is not stopped again: a
second Ctrl-C would leave a target half-way, and changes nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.runtime import flow_run

from airlock.errors import AirlockError
from airlock.scope import Scope

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_S = 3.0


class Interrupted(AirlockError):
    """The run was asked to end: the failure that its way back answers."""


class Person:
    """Whoever may ask the run to end."""

    def __init__(self) -> None:
        self.asked: Interrupted | None = None
        self._scope: Scope | None = None

    @asynccontextmanager
    async def may_interrupt(self) -> AsyncIterator[None]:
        """Raises Interrupted out of the block once somebody asks; at once if they have."""
        async with Scope() as scope:
            self._scope = scope
            try:
                self.check()
                yield
            finally:
                self._scope = None

    def check(self) -> None:
        """Raises Interrupted if somebody has asked."""
        if self.asked is not None:
            raise self.asked

    def ask(self, how: str) -> None:
        """End the work. how: they asked, for the ledger."""
        if self.asked is None:
            self.asked = Interrupted(f"The run was asked to end ({how}).")
        if self._scope is not None:
            self._scope.end(self.asked)
        with suppress(Exception):  # outside of a run there is no log of one
            get_run_logger().warning(
                "Asked to end (%s): what was begun is taken back first. To ask again changes "
                "nothing.",
                how,
            )


async def _until_cancelled(person: Person) -> None:
    """Look whether somebody has pressed Cancel: a worker passes it on, a command line has none."""
    while person.asked is None:
        await asyncio.sleep(LOOK_S)
        with suppress(Exception):  # a server that is away asks for nothing
            async with get_client() as client:
                run = await client.read_flow_run(UUID(str(flow_run.id)))
            if run.state is not None and run.state.is_cancelling():
                person.ask("Cancel")


@asynccontextmanager
async def listening() -> AsyncIterator[Person]:
    """Within this block signals end no process; they end what ``may_interrupt`` guards."""
    person = Person()
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    try:
        # Not in the main thread: whoever runs the flow there hears the signals.
        with suppress(ValueError, RuntimeError):
            for number in SIGNALS:
                handler = signal.getsignal(number)
                loop.add_signal_handler(number, person.ask, number.name)
                before[number] = handler
        watching = asyncio.create_task(_until_cancelled(person))
        try:
            yield person
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
