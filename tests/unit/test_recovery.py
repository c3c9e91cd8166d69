"""The rule for what a dead runner left, whose process is gone, and blocks that are ended."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airlock import holder, migration, recovery
from airlock.errors import Broken, LeaseLost
from airlock.migration import MigrationFile
from airlock.plan import Plan
from airlock.scope import Scope


def left(state: str, *, kind: str = "deploy", wanted: int = 2, contract: int = 0) -> Any:
    """A deploy of so many migrations, the last ``contract`` of them its contract."""
    migrations = tuple(
        migration.parse(
            MigrationFile(
                version=number,
                name="step",
                path=Path("step.sql"),
                text=f"-- Phase: {'contract' if number > wanted - contract else 'expand'}\n"
                "SELECT 1;\n-- ROLLBACK NOTES\n-- SELECT 2;\n",
                checksum="",
            )
        )
        for number in range(1, wanted + 1)
    )
    plan = Plan(target="prod", head=None, migrations=migrations, schema_before="")
    return SimpleNamespace(state=state, kind=kind, planned=plan)


def done(*states: str) -> Any:
    return [SimpleNamespace(state=state) for state in states]


@pytest.mark.parametrize(
    ("row", "migrations", "swapped", "way"),
    [
        (left("planned"), (), False, "back"),
        (left("approved"), (), False, "back"),
        (left("applying"), (), False, "back"),
        (left("applying"), ("applied",), False, "back"),
        (left("applying"), ("applied", "started"), False, "back"),
        (left("applying"), ("applied", "applied"), False, "forwards"),
        (left("applied"), ("applied", "applied"), False, "forwards"),
        (left("verified"), ("applied", "applied"), False, "forwards"),
        (left("restarted"), ("applied", "applied"), False, "forwards"),
        (left("healthy"), ("applied", "applied"), False, "forwards"),
        (left("applying", wanted=0), (), False, "forwards"),  # a release alone
        (left("applying", contract=1), (), False, "back"),
        (left("applying", contract=1), ("applied",), False, "forwards"),
        (left("verified", contract=1), ("applied",), False, "forwards"),
        (left("applying", contract=2), (), False, "forwards"),  # a contract alone
        (left("contracting", contract=1), ("applied",), False, "back"),
        (left("contracting", contract=1), ("applied", "started"), False, "back"),
        (left("contracting", contract=2), ("applied",), False, "back"),
        (left("contracting", contract=1), ("applied", "applied"), False, "forwards"),
        (left("contracted", contract=1), ("applied", "applied"), False, "forwards"),
        (left("rolling_back", contract=1), ("applied", "rolled_back"), False, "back"),
        (left("rolling_back"), ("applied", "rolled_back"), False, "back"),
        (left("rolling_back", kind="refresh"), (), True, "back"),
        (left("snapshotted", kind="refresh"), (), False, "back"),
        (left("applying", kind="refresh"), (), False, "back"),
        (left("applying", kind="refresh"), (), True, "forwards"),
        (left("restarted", kind="refresh"), (), True, "forwards"),
    ],
    ids=lambda value: getattr(value, "state", None),
)
def test_the_whole_goes_forwards_and_a_part_goes_back(row, migrations, swapped, way):
    found = recovery.remedy(row, done(*migrations), swapped=swapped)
    assert found.way == way
    assert found.sentence.endswith("so it is finished" if way == "forwards" else "so it goes back")


# ---------------------------------------------------------------- who is gone


def test_a_process_knows_itself_and_is_not_gone():
    assert re.fullmatch(r".+:[0-9]+:[0-9a-f]{8}-[0-9]+", holder.name())
    assert not holder.is_gone(holder.name())


def test_a_process_that_has_ended_is_gone():
    said = subprocess.run(
        [sys.executable, "-c", "from airlock import holder; print(holder.name())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert said.split(":")[-2] != str(os.getpid())
    assert holder.is_gone(said)


@pytest.mark.parametrize(
    "change",
    [
        lambda host, pid, place, ticks: f"another:{pid}:{place}-{ticks}",
        lambda host, pid, place, ticks: f"{host}:{pid}:00000000-{ticks}",  # boot or container
        lambda host, pid, place, ticks: f"{host}:{pid}:{place}",  # of an earlier version
        lambda host, pid, place, ticks: "host:1",
    ],
)
def test_a_process_of_another_place_may_be_there(change):
    host, pid, mark = holder.name().rsplit(":", 2)
    place, ticks = mark.split("-")
    assert not holder.is_gone(change(host, int(pid) + 1, place, int(ticks) + 1))


def test_a_number_that_came_back_is_another_process():
    host, pid, mark = holder.name().rsplit(":", 2)
    place, ticks = mark.split("-")
    assert holder.is_gone(f"{host}:{pid}:{place}-{int(ticks) - 1}")


# ---------------------------------------------------------------- a block that is ended


async def test_a_block_that_is_ended_clears_up_and_raises_why():
    cleared = asyncio.Event()

    async def work() -> None:
        async with Scope() as scope:
            asyncio.get_running_loop().call_later(0.01, scope.end, LeaseLost("gone"))
            try:
                await asyncio.sleep(10)
            finally:
                cleared.set()

    with pytest.raises(LeaseLost, match="gone"):
        await work()
    assert cleared.is_set()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_what_fails_over_being_ended_is_the_cause():
    async def work() -> None:
        async with Scope() as scope:
            scope.end(LeaseLost("gone"))
            try:
                await asyncio.sleep(10)
            finally:
                raise Broken("on the way out")

    with pytest.raises(LeaseLost) as caught:
        await work()
    assert isinstance(caught.value.__cause__, Broken)


async def test_a_block_that_nobody_ends_is_as_it_was():
    async with Scope():
        await asyncio.sleep(0)
    with pytest.raises(Broken):
        async with Scope():
            raise Broken("by itself")


async def test_a_block_inside_another_ends_alone():
    async def inside() -> None:
        async with Scope() as inner:
            inner.end(LeaseLost("inner"))
            await asyncio.sleep(10)

    async with Scope():
        with pytest.raises(LeaseLost):
            await inside()
        await asyncio.sleep(0)
