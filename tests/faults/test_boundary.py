"""The edges of the steps that touch production: a small part of the matrix, in each test run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airlock import server
from flows.runtime import Runtime
from tests.conftest import OWNER_PASSWORD, TEST_SETTINGS
from tests.faults import files, guards, matrix, network, zygote
from tests.faults.injector import SWITCH
from tests.faults.oracle import Expected
from tests.faults.theatre import Case, House, perform
from tests.faults.worker import Worker

_AT_POINTS = {
    "forwards": (
        "apply_plan: 011_score.sql, after its COMMIT",
        "restart_service: before the end of an instance",
        "apply_contract: 014_unread.sql, after its COMMIT",
    ),
    "rollback": ("roll_back: ROLLBACK NOTES of 014_unread, after its COMMIT",),
}
_KNOWN: dict[str, Case] = {
    case.name: case
    for case in (
        *(case for name, points in _AT_POINTS.items() for case in matrix.at_points(name, points)),
        *files.of_snapshots(),
        *network.cases(),
    )
}
CASES = (
    *(
        name
        for name in _KNOWN
        # Its SIGTERM is below, and goes the same way.
        if name.endswith(f" / {matrix.KILLED}") and "restart_service" not in name
    ),
    "forwards / restart_service: before the end of an instance / SIGTERM",
    "the answer to COMMIT is lost / forwards / apply_plan: 011_score.sql, before its COMMIT",
)
# A cheap one of the guards that `make faults` takes away.
_WITHOUT = "the digest of a manifest"


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
            api=prefect_server.client,
            folder=folder,
        )


@pytest.mark.parametrize("name", CASES)
async def test_a_deploy_ends_whole_or_as_before_whatever_happens_at_an_edge(house, name):
    number = CASES.index(name)
    done = await perform(house, _KNOWN[name], number=number, seed=number, expected=Expected())
    assert done.violations == []


async def test_a_case_is_lost_without_the_guard_that_it_is_about(house):
    case = _KNOWN[guards.GUARDS[_WITHOUT].case]
    number = len(CASES)
    done = await perform(
        house, case, number=number, seed=number, expected=Expected(), without=_WITHOUT
    )
    assert done.violations[0] == "it ended as succeeded, expected ['failed']"
