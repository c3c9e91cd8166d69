"""From an unhealthy verdict to its alerts, through the real flow."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from unittest import mock

from airlock import ledger, settings
from airlock.server import free_port
from bench import rollback, stage
from bench.rounds import Row, Setting, median, spread

NAME = "alert"
MUST_S = 5
WEBHOOK = "AIRLOCK_BENCH_WEBHOOK"
BEGUN, ENDED = b"ROLLING BACK", b"ROLLED BACK"
# The rollback's bench looks faster than those who set nothing do; the alert must not depend on it.
SET_HEALTH = re.compile(r"^(consecutive|interval_ms|bake_s) = .*\n", re.MULTILINE)


FIRST = "unhealthy verdict to the alert of its rollback"
LAST = "the end of a rollback to the alert of its outcome"
ALL = "unhealthy verdict to the alert of the outcome"
MUST = (FIRST, LAST)
NOTES = {
    FIRST: "sent while it goes on; the slowest round counts",
    LAST: "from `rolled_back` in the ledger; the slowest round counts",
    ALL: "with the boot of the old release, and a health check with the defaults, 4 s at least",
}


@dataclass(slots=True)
class Webhook:
    """A receiver on loopback, and when it had the whole of each alert of a round."""

    url: str = ""
    had_at: dict[bytes, datetime] = field(default_factory=dict)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        for what in (BEGUN, ENDED):
            if what in body:
                self.had_at[what] = datetime.now(UTC)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def _receiving() -> AsyncGenerator[Webhook]:
    found = Webhook()
    async with await asyncio.start_server(found.handle, "127.0.0.1", 0) as server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield found


async def run(setting: Setting) -> list[Row]:
    root, port = setting.folder / NAME, free_port()
    async with stage.production(setting.folder) as server, _receiving() as webhook:
        await stage.create_database(server, rollback.NAME)
        await rollback.load(server, 300, setting)
        await rollback.project(root, port)
        config = root / "airlock.toml"
        text = SET_HEALTH.sub("", config.read_text(encoding="utf-8"))
        text += f'[targets.bench.alerts]\nslack_url_env = "{WEBHOOK}"\n'
        config.write_text(text, encoding="utf-8")
        env = stage.environment(root, server, rollback.NAME)
        more = {"DATABASE_URL": server.url(rollback.NAME, stage.OWNER), WEBHOOK: webhook.url}
        # Before Prefect is imported, which makes a folder in the home of whoever runs this.
        home = {"PREFECT_HOME": str(setting.folder / "prefect")}
        with mock.patch.dict(os.environ, {**env, **more, **home}):
            seconds = await _measured(setting, webhook)
    shutil.rmtree(root)
    return _rows(seconds)


async def _measured(setting: Setting, webhook: Webhook) -> dict[str, list[float]]:
    """Seconds from one moment to another, in each round."""
    from flows.runtime import prefect_runtime

    rounds: list[dict[str, float]] = []
    runtime = prefect_runtime(setting.folder / "prefect", port=0, worker=False)
    async with runtime as running, rollback.serving():
        with running.as_current():
            from flows.deploy import deploy

            for number in range(setting.times(5)):
                setting.say(f"round {number + 1}")
                webhook.had_at.clear()
                state = await deploy("bench", release="bad", return_state=True)
                if state.name != "RolledBack" or set(webhook.had_at) != {BEGUN, ENDED}:
                    raise RuntimeError(f"Nobody heard of a rollback: {state.name} {state.message}")
                rounds.append(await _seconds(webhook))
    return {what: [each[what] for each in rounds] for what in rounds[0]}


async def _seconds(webhook: Webhook) -> dict[str, float]:
    """Of the last deploy, by the ledger's clock and the receiver's, which are one machine's."""
    async with ledger.connection(settings.target("bench")) as conn:
        (row,) = await ledger.recent(conn)
        events = await ledger.events(conn, row.id)
    verdict_at = next(e.at for e in events if (e.step, e.phase) == ("check_health", "failed"))
    assert row.finished_at is not None
    begun_at, ended_at = webhook.had_at[BEGUN], webhook.had_at[ENDED]
    return {
        FIRST: (begun_at - verdict_at).total_seconds(),
        LAST: (ended_at - row.finished_at).total_seconds(),
        ALL: (ended_at - verdict_at).total_seconds(),
    }


def _rows(found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(
            what=what,
            ours=median(seconds),
            must=f"< {MUST_S} s" if what in MUST else "",
            holds=max(seconds) < MUST_S if what in MUST else None,
            note=f"{spread(seconds)}; {NOTES[what]}",
        )
        for what, seconds in found.items()
    ]
