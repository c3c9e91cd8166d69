"""The edges of the steps that touch production: a small part of the matrix, in each test run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airlock import server
from flows.runtime import Runtime
from tests.conftest import OWNER_PASSWORD, TEST_SETTINGS
from tests.faults import beside, files, matrix, network, zygote
from tests.faults.injector import SWITCH
from tests.faults.oracle import Expected
from tests.faults.theatre import Case, House, perform
from tests.faults.worker import Worker

_KILLED = (
    ("forwards", "apply_plan: before the intent"),
    ("forwards", "apply_plan: 011_score.sql, after its COMMIT"),
    ("forwards", "apply_plan: before applied"),
    ("forwards", "restart_service: before restarted"),
    ("forwards", "succeed: after succeeded"),
    ("rollback", "roll_back: ROLLBACK NOTES of 011_score, after its COMMIT"),
    ("rollback", "roll_back: before rolled_back"),
)


def _cases() -> dict[str, Case]:
    passed = {
        name: [point for scenario, point in _KILLED if scenario == name]
        for name in ("forwards", "rollback")
    }
    wanted = [f"{scenario} / {point} / SIGKILL of the flow" for scenario, point in _KILLED]
    wanted += [
        "forwards / apply_plan: 011_score.sql, after its COMMIT / SIGTERM",
        "the answer to COMMIT is lost / forwards / apply_plan: 011_score.sql, before its COMMIT",
        "PostgreSQL stopped at once / forwards, apply_plan: 011_score.sql, before its COMMIT",
        "the snapshot is bit-flipped / forwards, rehearse",
    ]
    known = {
        case.name: case
        for case in (
            *matrix.at_points("forwards", passed["forwards"]),
            *matrix.at_points("rollback", passed["rollback"]),
            *beside.cases(),
            *files.cases(),
            *network.cases(),
        )
    }
    return {name: known[name] for name in wanted}


CASES = _cases()


@pytest.fixture(scope="module")
async def house(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    prefect_server: Runtime,
    servers_dir: Path,
) -> AsyncIterator[House]:
    folder = servers_dir / "faults"
    folder.mkdir()
    environment = prefect_server.environment | {SWITCH: "1"}
    async with zygote.running(folder / "zygote", environment) as flows:
        yield House(
            pg=pg,
            settings=TEST_SETTINGS,
            owner_password=OWNER_PASSWORD,
            base=base_009,
            repository=service_repository,
            zygote=flows,
            worker=Worker(folder, "faults"),
            folder=folder,
        )


@pytest.mark.parametrize("name", CASES)
async def test_a_deploy_ends_whole_or_as_before_whatever_happens_at_an_edge(house, name):
    number = list(CASES).index(name)
    done = await perform(house, CASES[name], number=number, seed=number, expected=Expected())
    assert done.violations == []
