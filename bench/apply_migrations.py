"""Small migrations with history, one transaction each, beside dbmate; then nothing to do."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.introspection import read_catalogue
from airlock.server import Server
from bench import dbmate, stage
from bench.rounds import Contestant, Row, Setting, interleaved, median, program, spread

NOTHING_MUST_S = 0.4

FORWARD = """CREATE TABLE item_{n:03d} (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);"""
REVERSE = "DROP TABLE item_{n:03d};"


@dataclass(slots=True, kw_only=True)
class Contest:
    """Two folders with the same migrations, and a fresh database for each run."""

    server: Server
    peer: Path
    root: Path
    count: int
    made: list[str] = field(default_factory=list)
    applies: list[float] = field(default_factory=list)

    def write_files(self) -> None:
        stage.project(self.root / "ours")
        shutil.rmtree(self.root / "peer", ignore_errors=True)
        (self.root / "peer").mkdir(parents=True)
        for n in range(1, self.count + 1):
            forward, reverse = FORWARD.format(n=n), REVERSE.format(n=n)
            (self.root / "ours" / "migrations" / f"{n:03d}_item.sql").write_text(
                f"-- Migration {n:03d}: item\n-- Purpose: a small table\n-- Author: bench\n"
                f"-- Date: 2026-01-01\n\n{forward}\n\n-- ROLLBACK NOTES\n-- {reverse}\n",
                encoding="utf-8",
            )
            (self.root / "peer" / f"{n:03d}_item.sql").write_text(
                f"-- migrate:up\n{forward}\n\n-- migrate:down\n{reverse}\n", encoding="utf-8"
            )

    async def fresh(self, who: str) -> str:
        name = f"{who}_{self.count}_{len(self.made)}"
        await stage.create_database(self.server, name)
        self.made.append(name)
        return name

    def latest(self, who: str) -> str:
        return next(name for name in reversed(self.made) if name.startswith(f"{who}_"))

    def env(self, database: str) -> dict[str, str]:
        address = dbmate.url(self.server, database, stage.OWNER)
        ours = stage.environment(self.root / "ours", self.server, database)
        return {**ours, "DATABASE_URL": address}

    async def ours(self) -> float:
        command = [sys.executable, "-m", "bench.apply_500"]
        seconds, out = await program(command, env=self.env(await self.fresh("ours")))
        self.applies.append(float(out))
        return seconds

    async def theirs(self) -> float:
        env = self.env(await self.fresh("peer"))
        command = dbmate.command(self.peer, self.root / "peer", "migrate")
        seconds, _ = await program(command, env=env)
        return seconds

    async def finish(self) -> None:
        """Close the newest deploy as the steps after the apply do."""
        with mock.patch.dict(os.environ, self.env(self.latest("ours"))):
            target = settings.target("bench")
            async with ledger.connection(target) as conn:
                (last,) = await ledger.recent(conn)
                lease = await ledger.take_over(conn, last)
                found = await ledger.save_catalogue(conn, await read_catalogue(conn))
                await ledger.note(conn, lease, schema_expected=found)
            await steps.verify_schema(lease)
            await steps.succeed(lease)

    def idle(self) -> dict[str, Contestant]:
        """The commands that find nothing to do."""
        ours = self.env(self.latest("ours"))
        theirs = self.env(self.latest("peer"))

        def of(command: list[str], env: dict[str, str]) -> Contestant:
            async def run() -> float:
                seconds, _ = await program(command, env=env)
                return seconds

            return run

        return {
            **{
                f"airlock {verb}": of(stage.airlock(verb, "bench"), ours)
                for verb in ("plan", "status", "deploy")
            },
            **{
                f"dbmate {verb}": of(dbmate.command(self.peer, self.root / "peer", verb), theirs)
                for verb in ("status", "migrate")
            },
        }

    async def end(self) -> None:
        for name in self.made:
            await stage.drop_database(self.server, name)


async def run(setting: Setting) -> list[Row]:
    peer = await dbmate.find()
    rows: list[Row] = []
    async with stage.production(setting.folder) as server:
        for count, rounds in ((10, 9), (40 if setting.quick else 500, 7)):
            root = setting.folder / f"apply_{count}"
            contest = Contest(server=server, peer=peer, root=root, count=count)
            contest.write_files()
            rows += await _measured(contest, setting, rounds)
            await contest.end()
            shutil.rmtree(root)
    return rows


async def _measured(contest: Contest, setting: Setting, rounds: int) -> list[Row]:
    count = contest.count
    both = {f"apply {count}": contest.ours, f"dbmate {count}": contest.theirs}
    got = await interleaved(both, rounds=setting.times(rounds), say=setting.say)
    ours, theirs = got.values()
    await contest.finish()
    seconds = await interleaved(contest.idle(), rounds=setting.times(15), say=setting.say)
    whole = Row(
        what=f"apply {count} migrations, whole process",
        ours=median(ours),
        peer=median(theirs),
        peer_name="dbmate migrate",
        note=f"ours {spread(ours)}, dbmate {spread(theirs)}",
    )
    alone = Row(
        what=f"apply {count} migrations, the apply alone",
        ours=median(contest.applies),
        # What is left of its process when nothing is pending is not its apply.
        peer=median(theirs) - median(seconds["dbmate migrate"]),
        peer_name="dbmate migrate, less a run with nothing to do",
        note=f"ours {spread(contest.applies)}",
    )
    pairs = {"plan": "status", "status": "status", "deploy": "migrate"}
    idle = [
        _bounded(
            Row(
                what=f"{count} applied, nothing to do: airlock {verb}",
                ours=median(seconds[f"airlock {verb}"]),
                peer=median(seconds[f"dbmate {other}"]),
                peer_name=f"dbmate {other}",
                must=f"< {NOTHING_MUST_S} s",
                note=spread(seconds[f"airlock {verb}"]),
            )
        )
        for verb, other in pairs.items()
    ]
    return [whole, _no_slower(alone) if count > 10 else alone, *idle]


def _no_slower(row: Row) -> Row:
    return replace(row, must="ratio ≥ 1", holds=row.ratio is not None and row.ratio >= 1)


def _bounded(row: Row) -> Row:
    return replace(row, holds=row.ours < NOTHING_MUST_S)
