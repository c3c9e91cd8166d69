"""``python -m bench``: every measurement beside its peer, in one table. See bench/README.md.

Exit status: 0 when everything was measured, whatever came out; 1 when something could not be.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import importlib
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from airlock import binaries
from bench.rounds import CHECKOUT, PLACE, Row, Setting

# In the table's order; each is a module with ``run(setting) -> list[Row]``.
MEASUREMENTS = {
    "snapshot": "bench.snapshot_restore",
    "apply": "bench.apply_migrations",
    "fingerprint": "bench.fingerprint",
    "rollback": "bench.rollback",
    "alert": "bench.alert",
    "refresh": "bench.refresh",
    "restart": "bench.restart",
    "zero_downtime": "bench.zero_downtime",
    "command": "bench.command_line",
}
RESULTS = CHECKOUT / "bench" / "results.md"
WHOLE = ("MB", "failed", "tries")
HEADINGS = ("what", "ours", "peer", "ratio", "must be", "holds", "notes")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one run found, by measurement."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def main() -> int:
    options = _options()
    console = Console()
    PLACE.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (PLACE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another bench runs in this checkout; two would disturb each other. Wait for it.")
            return 1
        outcome = asyncio.run(_measure(options, console))
    _show(outcome, console)
    if options.write:
        kept = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        RESULTS.write_text(markdown(outcome, kept), encoding="utf-8")
        console.print(f"Written to {RESULTS.relative_to(CHECKOUT)}")
    return 1 if outcome.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Airlock and its peers.")
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, help="one measurement; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="little data, one round: a smoke test")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement")
    parser.add_argument("--write", action="store_true", help="keep the rows in bench/results.md")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick measures too little to be kept: leave out --write")
    return options


async def _measure(options: argparse.Namespace, console: Console) -> Outcome:
    folder = PLACE / "run"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True, mode=0o700)
    outcome, began = Outcome(), time.monotonic()
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        for name in options.only or MEASUREMENTS:
            since = time.monotonic()

            def say(text: str, name: str = name) -> None:
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                live.update(Spinner("dots", f" {minutes}:{seconds:02d}  {name}: {text}"))

            setting = Setting(quick=options.quick, rounds=options.rounds, folder=folder, say=say)
            say("starting")
            try:
                measurement = importlib.import_module(MEASUREMENTS[name])
                outcome.rows[name] = await measurement.run(setting)
            except Exception as error:  # noqa: BLE001 – the others can still be measured
                outcome.failures[name] = f"{type(error).__name__}: {error}"
                live.console.print_exception()
            outcome.seconds[name] = time.monotonic() - since
            live.console.print(f"{name}: {outcome.seconds[name]:.0f} s")
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in the order of the headings."""
    peer = f"{_number(row.peer, row.unit)} ({row.peer_name})" if row.peer is not None else "–"
    ratio = f"{row.ratio:.2f}" if row.ratio is not None else "–"
    holds = {True: "yes", False: "NO", None: "–"}[row.holds]
    return row.what, _number(row.ours, row.unit), peer, ratio, row.must or "–", holds, row.note


def _number(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if unit in WHOLE else f"{value:.3g} {unit}"


def _show(outcome: Outcome, console: Console) -> None:
    table = Table(title=f"Medians; {_machine()}")
    for heading in HEADINGS[:-1]:
        table.add_column(heading, justify="right" if heading in ("ours", "ratio") else "left")
    rows = [row for each in outcome.rows.values() for row in each]
    for row in rows:
        table.add_row(*cells(row)[:-1], style="red" if row.holds is False else None)
    console.print(table)
    console.print("ratio: how many times as long the peer takes; above 1 Airlock is faster")
    for row in rows:
        console.print(f"  {row.what}: {row.note}", style="dim", highlight=False, markup=False)
    for name, message in outcome.failures.items():
        console.print(f"{name} could not be measured: {message}", style="red", markup=False)


def markdown(outcome: Outcome, kept: str) -> str:
    """The file of the repository: a table for each measurement, the newest run of each.

    kept: the file as it was; measurements that were not made now stay as they stand in it.
    """
    _, *tables = kept.split("\n## ")
    sections = {table.partition("\n")[0]: table.rstrip() for table in tables}
    sections |= {name: _section(name, outcome) for name in outcome.rows}
    head = [
        "# The last run of each measurement of `make bench`",
        "",
        "Medians of interleaved rounds. Ratio: how many times as long the peer takes.",
        "How to read it: [README.md](README.md).",
    ]
    known = [f"## {sections[name]}" for name in MEASUREMENTS if name in sections]
    return "\n\n".join(["\n".join(head), *known]) + "\n"


def _section(name: str, outcome: Outcome) -> str:
    rule = "|".join("---:" if each in ("ours", "ratio") else "---" for each in HEADINGS)
    took_min = outcome.seconds[name] / 60
    lines = [
        name,
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {_machine()}; {took_min:.1f} minutes.",
        "",
        f"|{'|'.join(HEADINGS)}|",
        f"|{rule}|",
        *(f"|{'|'.join(cells(row))}|" for row in outcome.rows[name]),
    ]
    return "\n".join(lines)


def _machine() -> str:
    busy = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, load {busy:.1f} at the end, {platform.system()}, Python "
        f"{platform.python_version()}, PostgreSQL {binaries.find().version}"
    )


if __name__ == "__main__":
    sys.exit(main())
