"""One of the lanes that play cases side by side: a PostgreSQL server, and one case after another.

``python -m tests.faults.lane FOLDER REPOSITORY ZYGOTE``. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from airlock import binaries, server
from airlock.postgres import quote_literal
from flows.runtime.api import client
from tests import own
from tests.faults import matrix
from tests.faults.oracle import Expected
from tests.faults.theatre import House, Recording, perform, record
from tests.faults.worker import Worker
from tests.faults.zygote import Zygote, end_on_term
from tests.people import connect
from tests.stage import make_base

BASE = "base"
OWNER_PASSWORD = "the owner's"
_SETTINGS = {
    **server.SCRATCH_SETTINGS,
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_connections": "60",
    "autovacuum": "off",
}


@asynccontextmanager
async def house(folder: Path, repository: Path, zygote: Path) -> AsyncGenerator[House]:
    """A lane's server with the database that each case gets a copy of."""
    found = binaries.find()
    await server.initdb(found, folder / "pg")
    with own.port() as port:
        async with server.running(found, folder / "pg", port=port, settings=_SETTINGS) as pg:
            async with connect(pg.url()) as superuser:
                secret = quote_literal(OWNER_PASSWORD)
                await superuser.execute(f"CREATE ROLE owner LOGIN PASSWORD {secret}")
            await make_base(pg, BASE, folder / "base")
            made = House(
                pg=pg,
                settings=_SETTINGS,
                owner_password=OWNER_PASSWORD,
                base=BASE,
                repository=repository,
                zygote=Zygote(path=zygote),
                worker=Worker(folder, f"faults-{folder.name}"),
                api=partial(client, os.environ["PREFECT_API_URL"]),
                folder=folder,
            )
            try:
                yield made
            finally:
                await made.worker.close()


async def main(folder: Path, repository: Path, zygote: Path) -> None:
    end_on_term()
    async with house(folder, repository, zygote) as made:
        known: dict[str, Recording] = {}
        expected, cases = Expected(), {}
        number = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            number += 1
            request: Mapping[str, Any] = json.loads(line)
            if "record" in request:
                scenario = request["record"]
                known[scenario] = await record(made, scenario, number=number)
                answer: dict[str, Any] = {
                    "points": known[scenario].points,
                    "fingerprint": known[scenario].state.fingerprint,
                    "files": sorted(known[scenario].files),
                }
            elif "recorded" in request:
                recorded = request["recorded"]
                expected = Expected(
                    deployed=recorded["forwards"]["fingerprint"],
                    files=frozenset(recorded["forwards"]["files"] + recorded["rollback"]["files"]),
                )
                points = {name: each["points"] for name, each in recorded.items()}
                cases = {case.name: case for case in matrix.cases(points)}
                answer = {
                    "cases": [
                        [each.name, each.fault, each.where, each.is_played]
                        for each in cases.values()
                    ]
                }
            else:
                case = cases[request["case"]]
                done = await perform(
                    made,
                    case,
                    number=number,
                    seed=request["seed"],
                    expected=expected,
                    without=request["without"],
                )
                answer = asdict(done)
            print(json.dumps(answer), flush=True)  # noqa: T201 – to who started it


if __name__ == "__main__":
    with suppress(asyncio.CancelledError):
        asyncio.run(main(*(Path(each) for each in sys.argv[1:])))
