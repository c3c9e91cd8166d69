"""Expand, verify, contract, verify: each phase by itself, from wherever a runner finds it."""

from __future__ import annotations

import pytest

from airlock import deploy as steps
from airlock import ledger, recovery
from airlock.errors import Broken, Refused
from airlock.ledger import Deploy, Lease
from airlock.preview import preview
from airlock.request import DeployRequest
from tests.people import connect
from tests.postgres.conftest import Project, runner

EXPAND = ("CREATE TABLE b (id int);", "DROP TABLE b;")
CONTRACT = (
    "-- Phase: contract\nALTER TABLE a DROP COLUMN old;",
    "ALTER TABLE a ADD COLUMN old int;",
)
SECOND = ("-- Phase: contract\nDROP INDEX a_id;", "CREATE INDEX a_id ON a (id);")


async def rehearsed(project: Project) -> Lease:
    """A deploy with an expand and two contracts, up to the apply."""
    await project.execute("CREATE TABLE a (id int, old int); CREATE INDEX a_id ON a (id)")
    project.write(1, *EXPAND)
    project.write(2, *CONTRACT)
    project.write(3, *SECOND)
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    return lease


async def row_of(project: Project, lease: Lease) -> Deploy:
    async with connect(project.url) as conn:
        return await ledger.deploy(conn, lease.deploy)


async def from_the_top(lease: Lease) -> None:
    """What whoever takes the deploy over does, as flows/forward.py has it."""
    await steps.apply_plan(lease)
    await steps.verify_schema(lease)
    await steps.apply_contract(lease)
    await steps.verify_schema(lease)
    await steps.succeed(lease)


async def names(project: Project) -> set[str]:
    found = (await project.catalogue()).objects
    return {"table public.b", "column public.a.old", "index public.a_id"} & set(found)


async def test_each_phase_is_applied_and_verified_by_itself(project: Project):
    lease = await rehearsed(project)
    with pytest.raises(Refused, match="is approved, and its contract waits until it is verified"):
        await steps.apply_contract(lease)
    assert (await steps.apply_plan(lease)).migrations == ("001_step",)
    await project.execute("CREATE TABLE stray (id int)")
    with pytest.raises(Broken) as caught:
        await steps.verify_schema(lease)
    assert "+ table public.stray" in str(caught.value)
    assert "public.a.old" not in str(caught.value), "it is compared with what the expand leaves"
    await project.execute("DROP TABLE stray")
    with pytest.raises(Refused, match="is applied, and its contract waits"):
        await steps.apply_contract(lease)
    assert await names(project) == {"table public.b", "column public.a.old", "index public.a_id"}
    assert (await steps.verify_schema(lease)).is_empty
    assert (await steps.apply_contract(lease)).migrations == ("002_step", "003_step")
    assert await names(project) == {"table public.b"}
    assert (await row_of(project, lease)).state == "contracted"
    # Another runner begins at the top, and nothing that it looks at takes the deploy back.
    await from_the_top(lease)
    assert [row.state for row in await project.rows(lease)] == ["applied"] * 3
    row = await row_of(project, lease)
    assert (row.state, row.schema_after) == ("succeeded", row.schema_expected)
    assert (await preview(project.target)).versions == "none"


async def test_without_the_guard_of_its_state_a_contract_would_be_applied_too_early(
    project: Project, monkeypatch
):
    lease = await rehearsed(project)
    await steps.apply_plan(lease)
    monkeypatch.setattr(steps, "_check_healthy", lambda *_: None)
    await steps.apply_contract(lease)
    assert await names(project) == {"table public.b"}


@pytest.mark.parametrize(
    ("there", "again", "way"),
    [(1, False, "back"), (2, False, "forwards"), (1, True, "forwards")],
)
async def test_a_runner_that_died_in_the_contract_leaves_it_whole_or_not_at_all(
    project: Project, dead: str, there: int, again: bool, way: str
):
    lease = await rehearsed(project)
    before = await project.catalogue()
    await steps.apply_plan(lease)
    await steps.verify_schema(lease)
    async with connect(project.url) as conn:
        await ledger.advance(conn, lease, "contracting")
        for position, each in enumerate(project.migrations()[1 : 1 + there], 2):
            await runner(project, conn, lease).forward(each, position=position)
    await project.execute(f"UPDATE airlock.deploy SET holder = '{dead}'")
    wanted = DeployRequest(target="prod") if again else None
    taken = await recovery.take_up(project.target, wanted)
    assert taken is not None
    assert taken.remedy.way == way
    if way == "forwards":
        await from_the_top(taken.lease)
        assert await names(project) == {"table public.b"}
        return
    undone = (await steps.roll_back(taken.lease, "cut off")).undone
    assert undone.migrations == ("002_step", "001_step")
    assert (await project.catalogue()).fingerprint == before.fingerprint


async def test_a_contract_beside_its_expand_is_refused_before_anything_is_begun(project: Project):
    await project.execute("CREATE TABLE a (id int, old int)")
    project.write(1, "ALTER TABLE a ADD COLUMN new int;", "ALTER TABLE a DROP COLUMN new;")
    project.write(2, *CONTRACT)
    with pytest.raises(Refused, match=r"002_step\.sql is a contract.*works on a as well"):
        await steps.open_deploy(DeployRequest(target="prod"))
    assert (await preview(project.target, up_to=1)).versions == "001"


async def test_an_empty_database_takes_them_all_at_once_also_after_a_failure(project: Project):
    project.write(1, "CREATE TABLE a (id int, old int);", "DROP TABLE a;")
    project.write(2, *CONTRACT)
    project.write(3, *EXPAND)
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.fail(lease, "x")
    planned = await preview(project.target)
    assert (planned.versions, planned.of_phase("contract")) == ("001…003", ())
