"""From an unhealthy verdict to the alert that everything is back, through the real flow."""

from __future__ import annotations

import asyncio
import os
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


@dataclass(slots=True)
class Webhook:
    """A receiver on loopback, and when it had the whole of each alert."""

    url: str = ""
    had_at: list[datetime] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        if b"ROLLED BACK" in body:
            self.had_at.append(datetime.now(UTC))
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
        with (root / "airlock.toml").open("a", encoding="utf-8") as file:
            file.write(f'[targets.bench.alerts]\nslack_url_env = "{WEBHOOK}"\n')
        env = stage.environment(root, server, rollback.NAME)
        more = {"DATABASE_URL": server.url(rollback.NAME, stage.OWNER), WEBHOOK: webhook.url}
        # Before Prefect is imported, which makes a folder in the home of whoever runs this.
        home = {"PREFECT_HOME": str(setting.folder / "prefect")}
        with mock.patch.dict(os.environ, {**env, **more, **home}):
            seconds = await _measured(setting, webhook)
    shutil.rmtree(root)
    return _rows(*seconds)


async def _measured(setting: Setting, webhook: Webhook) -> tuple[list[float], list[float]]:
    """Seconds from the verdict, and from the end of the rollback, in each round."""
    from flows.runtime import prefect_runtime

    since_verdict: list[float] = []
    since_back: list[float] = []
    runtime = prefect_runtime(setting.folder / "prefect", port=0, worker=False)
    async with runtime as running, rollback.serving():
        with running.as_current():
            from flows.deploy import deploy

            for number in range(setting.times(5)):
                setting.say(f"round {number + 1}")
                webhook.had_at.clear()
                state = await deploy("bench", release="bad", return_state=True)
                if state.name != "RolledBack" or not webhook.had_at:
                    raise RuntimeError(f"Nobody heard of a rollback: {state.name} {state.message}")
                verdict_at, back_at = await _moments()
                since_verdict.append((webhook.had_at[0] - verdict_at).total_seconds())
                since_back.append((webhook.had_at[0] - back_at).total_seconds())
    return since_verdict, since_back


async def _moments() -> tuple[datetime, datetime]:
    """When the last deploy was found unhealthy, and when all was back, by the ledger."""
    async with ledger.connection(settings.target("bench")) as conn:
        (row,) = await ledger.recent(conn)
        events = await ledger.events(conn, row.id)
    verdict_at = next(e.at for e in events if (e.step, e.phase) == ("check_health", "failed"))
    assert row.finished_at is not None
    return verdict_at, row.finished_at


def _rows(since_verdict: list[float], since_back: list[float]) -> list[Row]:
    both = {
        "the end of a rollback to its alert": (since_back, "from `rolled_back` in the ledger"),
        "unhealthy verdict to the alert of its rollback": (
            since_verdict,
            "with the rollback itself: a boot of the old release, and its health check",
        ),
    }
    return [
        Row(
            what=what,
            ours=median(seconds),
            must=f"< {MUST_S} s",
            holds=median(seconds) < MUST_S,
            note=f"{spread(seconds)}; {note}",
        )
        for what, (seconds, note) in both.items()
    ]
