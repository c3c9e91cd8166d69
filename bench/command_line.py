"""How long the command line takes to answer, whole process."""

from __future__ import annotations

import shutil

from bench import dbmate, stage
from bench.rounds import Contestant, Row, Setting, interleaved, median, program, spread

NAME = "command_line"
MUST_S = 0.4


async def run(setting: Setting) -> list[Row]:
    peer = await dbmate.find()
    root = setting.folder / "command_line"
    stage.project(root)
    for path in stage.tracker_files(10):
        shutil.copy(path, root / "migrations")
    async with stage.production(setting.folder) as server:
        await stage.create_database(server, NAME)
        address = dbmate.url(server, NAME, stage.OWNER)
        env = {**stage.environment(root, server, NAME), "DATABASE_URL": address}

        def of(*command: str) -> Contestant:
            async def run_() -> float:
                return (await program(command, env=env, cwd=root))[0]

            return run_

        contestants = {
            "airlock --help": of(*stage.airlock("--help")),
            "airlock status": of(*stage.airlock("status")),
            "airlock plan": of(*stage.airlock("plan", "bench")),
            "airlock lint": of(*stage.airlock("lint")),
            "dbmate --help": of(str(peer), "--help"),
            "dbmate status": of(*dbmate.command(peer, root / "migrations", "status")),
        }
        await contestants["airlock --help"]()  # the first one compiles
        got = await interleaved(contestants, rounds=setting.times(15), say=setting.say)
    shutil.rmtree(root)
    peers = {"airlock --help": "dbmate --help", "airlock lint": None}
    return [_row(name, got, peers.get(name, "dbmate status")) for name in got if name[:3] == "air"]


def _row(name: str, got: dict[str, list[float]], peer: str | None) -> Row:
    reads = name != "airlock --help"
    return Row(
        what=f"{name}, ten migrations pending" if reads else name,
        ours=median(got[name]),
        peer=median(got[peer]) if peer else None,
        peer_name=peer or "",
        must=f"< {MUST_S} s",
        holds=median(got[name]) < MUST_S,
        note=spread(got[name]),
    )
