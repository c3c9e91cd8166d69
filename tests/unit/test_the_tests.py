"""The tests' own sources: what makes a suite fail beside other work is in none of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Without this one, whose examples are wrong.
SOURCES = sorted(set(TESTS.rglob("*.py")) - {Path(__file__)})

# What lists all processes of the machine, or picks a port that others may pick as well.
OF_THE_MACHINE = {
    *("psutil.process_iter", "psutil.pids", "psutil.pid_exists", "psutil.net_connections"),
    *("table.everything", "server.free_port", "free_port"),
}
WHERE_ALLOWED = {
    "own.py": "by the test's own folder",
    "acceptance/test_secrets.py": "for words that occur nowhere else",
    "attacks/listeners.py": "for a line of its own in the environment",
}
# Seconds; tests.patience has more.
LEAST_S = 60
# How often something may be asked, where that is counted instead.
FEW = 10
# Functions in which a short limit is what the test is about.
SHORT_ON_PURPOSE = {
    "test_a_silent_server_is_given_up_and_said_to_be_silent",
    # Looked at in between, and waited for afterwards.
    "_alone",
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def number(node: ast.AST) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, int | float) else None


def limits(name: str, call: ast.Call) -> Iterator[float]:
    """The seconds after which a call gives up, where they are a number; 0 does not wait at all."""
    places = {"asyncio.timeout": call.args[:1], "asyncio.wait_for": call.args[1:2]}
    given = places.get(name, [])
    given += [each.value for each in call.keywords if each.arg in ("timeout", "ready_timeout")]
    yield from (found for each in given if (found := number(each)))


def short_limits(tree: ast.AST) -> Iterator[str]:
    on_purpose = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
        and node.name in SHORT_ON_PURPOSE
        for inner in ast.walk(node)
    }
    for name, call in calls(tree):
        if id(call) not in on_purpose:
            for seconds in limits(name, call):
                if seconds < LEAST_S:
                    yield f"line {call.lineno}: gives up after {seconds:g} s"


def counted_waits(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            times = [number(each) or 0 for each in node.iter.args]
            sleeps = any(name.endswith(".sleep") for name, _ in calls(node))
            if max(times, default=0) > FEW and sleeps:
                yield f"line {node.lineno}: asks only so often; use tests.patience.until"


def of_the_machine(tree: ast.AST) -> Iterator[str]:
    for name, call in calls(tree):
        if name in OF_THE_MACHINE:
            yield f"line {call.lineno}: {name} is about the whole machine; use tests.own"


def of_other_databases(tree: ast.AST) -> Iterator[str]:
    """Sessions are looked for in a database, or by their number; a base backup has neither."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else ""
        asks = isinstance(text, str) and re.search("FROM pg_stat_activity", text)
        if asks and not re.search(r"datname|pid = \$|BASE_BACKUP", text):
            yield f"line {node.lineno}: sessions of other databases count as well"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_sees_its_own_only_and_has_time(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [*short_limits(tree), *counted_waits(tree), *of_other_databases(tree)]
    if str(path.relative_to(TESTS)) not in WHERE_ALLOWED:
        found += of_the_machine(tree)
    assert not found, "\n".join(found)


WRONG = {
    "a limit": "async def f():\n    async with asyncio.timeout(5):\n        await g()",
    "a limit of a wait": "async def f():\n    await asyncio.wait_for(g(), 10)",
    "a limit of a request": "client(url, timeout=2)",
    "a counted wait": "def f():\n    for _ in range(200):\n        time.sleep(0.1)",
    "other processes": "found = [each for each in psutil.process_iter()]",
    "a port that is raced for": "port = free_port()",
    "other databases": "conn.fetchval('SELECT count(*) FROM pg_stat_activity')",
}


@pytest.mark.parametrize("source", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_found(source: str):
    tree = ast.parse(source)
    rules = (short_limits, counted_waits, of_the_machine, of_other_databases)
    assert [said for rule in rules for said in rule(tree)]
