"""Apply what is pending on target "bench": the process that is timed beside ``dbmate up``.

In it: the interpreter and its imports; reading, checking and parsing every file; the plan against
ledger and catalogue; creating the ledger; opening the deploy; each migration in a transaction of
its own with fence, ledger row and journal; the state afterwards.
Not in it: what dbmate does not do either. Snapshot, rehearsal, comparing schemas before and after
the apply, the service.

Prints the seconds of the apply alone, from its intent in the journal to its result.
"""

from __future__ import annotations

import asyncio
import time

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.request import DeployRequest


async def main() -> None:
    lease = await steps.open_deploy(DeployRequest(target="bench"))
    if lease is None:
        return
    target = settings.target(lease.target)
    began = time.monotonic()
    async with ledger.journal(target, lease, "apply_plan") as conn:
        await steps.run_plan(conn, lease, (await ledger.deploy(conn, lease.deploy)).planned)
    print(time.monotonic() - began)


if __name__ == "__main__":
    asyncio.run(main())
