"""The sessions that change a target, told apart by the fence in their names.

A server goes on with a statement whose client was killed. Whoever takes a deploy over finds by the
name what is left of an earlier runner, and ends it before looking at what it did.
"""

from __future__ import annotations

import asyncio
import logging
import time

from airlock import ledger, postgres
from airlock.errors import Transient
from airlock.ledger import Deploy, Lease
from airlock.postgres import Conn

log = logging.getLogger(__name__)

# How long a session that was told to end may take, in seconds.
GONE_S = 20.0
_POLL_S = 0.05


def apply_name(lease: Lease) -> str:
    """The application_name, without "airlock", of the one session that applies a plan."""
    return f"apply {lease.fence}"


def rollback_name(lease: Lease) -> str:
    """The same of the one that undoes it."""
    return f"rollback {lease.fence}"


async def take_over(conn: Conn, row: Deploy, *, flow_run: str | None = None) -> Lease:
    """A new lease on a deploy. Its earlier runner can write no more, and nothing of it goes on.

    flow_run: the run of Prefect that works on it from now on.
    Raises Transient when a session of that runner does not end.
    """
    # First: one that is in a transaction keeps the deploy's row.
    await end_earlier(conn, Lease(target=row.target, deploy=row.id, fence=row.fence))
    return await ledger.take_over(conn, row, flow_run=flow_run)


async def end_earlier(conn: Conn, lease: Lease, *, gone_s: float = GONE_S) -> tuple[int, ...]:
    """End the sessions of runners from before this lease, and of its own earlier tries.

    conn: a session in the same database, spared itself.
    Returns their server processes. Raises Transient naming one that does not end, Refused when
    this role may not end it.
    """
    with postgres.translated("ending the sessions of an earlier runner"):
        ended = tuple(row["pid"] for row in await conn.fetch(_END, lease.fence))
        if ended:
            log.info("Ended sessions of an earlier runner: %s", ", ".join(map(str, ended)))
        deadline = time.monotonic() + gone_s
        while rows := await conn.fetch(_LEFT, lease.fence):
            if time.monotonic() >= deadline:
                raise Transient(
                    f"Server process {rows[0]['pid']} ({rows[0]['name']}) of an earlier runner of "
                    f"{lease.target} did not end within {gone_s:g} s. Nothing was done. Look at it "
                    f"in pg_stat_activity, then run: airlock status {lease.target}"
                )
            await asyncio.sleep(_POLL_S)
    return ended


_LEFT = postgres.query("sessions_earlier")
# In one look: a process number is soon somebody else's.
_END = f"SELECT s.pid, pg_catalog.pg_terminate_backend(s.pid) FROM ({_LEFT}) AS s"  # noqa: S608
