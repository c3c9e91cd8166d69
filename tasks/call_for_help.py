"""Call a person past an outbox that cannot be reached."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from airlock import outbox
from airlock.alert import Kind
from airlock.ledger import Lease
from tasks.send_alert import emit


@task(timeout_seconds=60, cache_policy=NO_CACHE, task_run_name="call_for_help {lease.target}")
async def call_for_help(lease: Lease, kind: Kind) -> None:
    """Say that nobody knows how far a deploy came, once, as an event and to each channel."""
    alert = outbox.out_of_reach(lease, kind)
    try:
        emit(alert)
    finally:
        await outbox.call(alert, f"{lease.target}-{lease.deploy}-out-of-reach-{lease.fence}")
