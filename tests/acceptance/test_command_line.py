"""``airlock deploy`` and ``airlock rollback`` as a person or a script starts them."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.patience import PATIENCE_S
from tests.people import connect


async def airlock(prefect_server, *arguments):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "airlock", *arguments),
        env={**os.environ, **prefect_server.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 2 * PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


async def test_the_exit_status_says_how_it_ended_and_an_undo_keeps_what_was_written_meanwhile(
    stage, prefect_server
):
    before = await stage.world()
    stage.migration(11, "score", "ALTER TABLE deals ADD COLUMN score integer;", "SELECT 1;")
    code, out, _ = await airlock(prefect_server, "deploy", "prod", "--reason", "score")
    last = out.splitlines()[-1]
    assert (code, last.split(".")[0]) == (1, "Refused: prod was not touched")
    assert last.endswith("Mend the ROLLBACK NOTES; production is untouched.")

    (stage.root / "migrations" / "011_score.sql").unlink()
    code, out, _ = await airlock(prefect_server, "deploy", "prod", "--release", "v2")
    assert (code, out.splitlines()[-1]) == (0, "Deployed: prod is deployed and healthy")

    code, out, _ = await airlock(prefect_server, "deploy", "prod")
    assert (code, out) == (0, "prod stands at 010_halt_monitoring. Nothing to do.\n")

    async with connect(stage.superuser_url) as conn:
        await conn.execute(
            "UPDATE deals SET last_halt_at = now()"
            " WHERE id = (SELECT min(id::text)::uuid FROM deals)"
        )
    code, out, _ = await airlock(prefect_server, "rollback", "prod", "--reason", "not wanted")
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "UndoneByHand")
    async with connect(stage.superuser_url) as conn:
        kept = await conn.fetch("SELECT relation, row_data FROM airlock.kept")
    assert [row["relation"] for row in kept] == ['"public"."deals"']
    after = await stage.world()
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert (await stage.health())["release"] == "v1"

    code, _, err = await airlock(prefect_server, "deploy", "nowhere")
    assert code == 1
    assert "no target 'nowhere'" in err
