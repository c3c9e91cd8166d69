"""``python -m examples.ma_tracker.demo [--keep]``. Exit status 0: every act ended as it should."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import asyncpg
import httpx
from rich.console import Console

from airlock.errors import AirlockError
from examples.ma_tracker.demo import acts, show, stage, summary
from examples.ma_tracker.demo.acts import ACTS, Load, Played
from examples.ma_tracker.demo.show import Checklist
from examples.ma_tracker.demo.stage import Stage

INTERRUPTED = 130
EXPECTED = (AirlockError, OSError, httpx.HTTPError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def demo(console: Console, *, keep: bool) -> int:
    """Set the stage, play the acts, say how they went, clear up."""
    began = time.monotonic()
    show.heading(
        console,
        "Airlock",
        "Three deploys of the M&A Tracker to a production that is written to all the while.",
    )
    async with _set_up(console) as on:
        played = await _play(console, on)
        summary.table(console, played)
        good = not any(each.wrong for each in played)
        _verdict(console, played, time.monotonic() - began)
        if keep:
            stage.place_migration("011_deal_risk_scores.sql")
            summary.kept(console, on)
            await _until_interrupted(console, on)
    if good:
        await asyncio.to_thread(stage.tidy)
    else:
        _name_logs(console)
    summary.next_steps(console)
    return 0 if good else 1


@asynccontextmanager
async def _set_up(console: Console) -> AsyncIterator[Stage]:
    """The stage, with its beginning and its end shown."""
    with ExitStack() as shown:
        checklist = Checklist()
        shown.enter_context(show.live(console, checklist))
        last = None
        try:
            async with stage.set_up(checklist) as on:
                shown.close()
                try:
                    yield on
                finally:
                    checklist = Checklist()
                    console.print()
                    shown.enter_context(show.live(console, checklist))
                    last = checklist.begin("ending worker, Prefect, service and PostgreSQL")
        finally:
            if last is not None:
                last.end("done")


async def _play(console: Console, on: Stage) -> list[Played]:
    load = Load(on.base_url)
    await load.next()
    played: list[Played] = []
    try:
        for number, act in enumerate(ACTS, 1):
            show.heading(console, f"Act {number} of {len(ACTS)}: {act.title}", *act.story)
            checklist = Checklist()
            with show.live(console, checklist):
                played.append(await acts.play(act, on, load, checklist))
            summary.act(console, played[-1])
            summary.keep_report(number, played[-1])
            if played[-1].wrong:
                break  # the next act would begin where this one should have ended
    finally:
        await load.stop()
    return played


def _verdict(console: Console, played: list[Played], seconds: float) -> None:
    wrong = [each.act.title for each in played if each.wrong]
    console.print()
    if wrong:
        text = f"{wrong[0]}: this act did not end as it should; the reasons stand below it."
        show.said(console, text, style="bold red")
    else:
        show.said(console, f"Every act ended as it should, in {seconds:.0f} s.", style="bold green")


def _name_logs(console: Console) -> None:
    for path in stage.logs():
        console.print(f"  Log: {summary.shown(path)}", soft_wrap=True, markup=False)


async def _until_interrupted(console: Console, on: Stage) -> None:
    """Wait for Ctrl-C; alerts of the deploys that the person starts are shown as they come."""
    told = len(on.webhook.texts)
    try:
        while True:
            for text in on.webhook.texts[told:]:
                show.alert(console, text)
            told = len(on.webhook.texts)
            stage.check_alive(on)
            await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run made it
        task.uncancel()


async def run(*, keep: bool) -> int:
    """The demo, its errors in words, and its end on Ctrl-C."""
    console = show.new_console()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run made it
    asked: list[bool] = []

    def interrupt() -> None:
        # Once: a second Ctrl-C would interrupt the clearing up, and leave processes behind.
        if not asked:
            asked.append(True)
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    try:
        return await demo(console, keep=keep)
    except asyncio.CancelledError:
        show.said(console, "Interrupted. Everything that the demo had started has ended.")
        return INTERRUPTED
    except EXPECTED as error:
        return _failed(console, error)
    except ExceptionGroup as group:
        expected, other = group.split(EXPECTED)
        if other is not None or expected is None:
            raise
        return _failed(console, *_leaves(expected))


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, ExceptionGroup) else [error])
    ]


def _failed(console: Console, *errors: Exception) -> int:
    for error in errors:
        show.said(console, f"{error or type(error).__name__}", style="bold red")
    _name_logs(console)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it all up until Ctrl-C")
    keep: bool = parser.parse_args().keep
    # What the steps log goes into the view by way of the ledger's journal.
    logging.getLogger("airlock").setLevel(logging.ERROR)
    return asyncio.run(run(keep=keep))


if __name__ == "__main__":
    sys.exit(main())
