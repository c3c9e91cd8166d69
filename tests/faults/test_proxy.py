"""The proxy loses what it was told to lose, and carries the rest."""

from __future__ import annotations

import asyncio

import pytest

from airlock.postgres import DRIVER_ERRORS
from tests.conftest import Database
from tests.faults.proxy import FAULTS, Fault, proxy_to
from tests.patience import until
from tests.people import connect

# Whether the row is there afterwards, and whether the client hears of an end.
EXPECTED: dict[Fault, tuple[bool, bool]] = {
    "cut before": (False, True),
    "cut after": (True, True),
    "swallow": (True, False),
    "stall": (False, False),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_does_what_its_name_says(database: Database, fault: Fault) -> None:
    arrives, heard = EXPECTED[fault]
    sql = "BEGIN; INSERT INTO t VALUES (1); COMMIT"
    async with (
        proxy_to(database.tcp_url) as proxy,
        connect(database.url) as beside,
        connect(proxy.url, purpose="other") as other,
        connect(proxy.url, purpose="victim") as victim,
    ):
        await beside.execute("CREATE TABLE t (id int)")
        proxy.arm(fault, session="airlock victim", skip=1)
        await other.execute("BEGIN; COMMIT")
        await victim.execute("BEGIN; COMMIT")
        assert proxy.struck == []
        asking = asyncio.create_task(victim.execute(sql))
        await until(lambda: proxy.struck == [sql])
        if not heard:
            await asyncio.sleep(0.3)
            assert not asking.done()
            victim.terminate()
        with pytest.raises((*DRIVER_ERRORS, OSError)):
            await asking

        async def has_arrived() -> bool:
            return await beside.fetchval("SELECT count(*) FROM t") == int(arrives)

        await until(has_arrived)
        assert await other.fetchval("SELECT 1") == 1


async def test_a_stalled_link_goes_on_when_it_is_let(database: Database) -> None:
    async with proxy_to(database.tcp_url) as proxy, connect(proxy.url, purpose="slow") as conn:
        proxy.stall("airlock slow")
        asked = asyncio.create_task(conn.fetchval("SELECT 1"))
        await asyncio.sleep(0.05)
        assert not asked.done()
        proxy.resume()
        assert await asked == 1
        proxy.cut("airlock slow")
        with pytest.raises((*DRIVER_ERRORS, OSError)):
            await conn.fetchval("SELECT 1")
