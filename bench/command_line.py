"""How long the command line takes to answer, whole process."""

from __future__ import annotations

import shutil

from bench import dbmate, squawk, stage
from bench.rounds import Contestant, Row, Setting, interleaved, median, program, spread

NAME = "command_line"
MUST_S = 0.4

MANY = "airlock lint, 2,000 statements"
MANY_S = 1.0
# Half of them are found fault with.
_FORMS = (
    "CREATE TABLE t_{n} (id bigint PRIMARY KEY, name text NOT NULL);",
    "COMMENT ON TABLE deals_{m} IS 'x';",
    "ALTER TABLE deals_{m} ADD COLUMN c_{n} integer NOT NULL DEFAULT 0;",
    "CREATE INDEX idx_{n} ON deals_{m} (name);",
    "ALTER TABLE deals_{m} ADD CONSTRAINT k_{n} FOREIGN KEY (a_{n}) REFERENCES sources (id);",
    "UPDATE deals_{m} SET name = '' WHERE id = {n};",
    "ALTER TABLE deals_{m} ALTER COLUMN c_{n} SET NOT NULL;",
    "GRANT SELECT ON deals_{m} TO reader;",
)


async def run(setting: Setting) -> list[Row]:
    peer, linter = await dbmate.find(), await squawk.find()
    root = setting.folder / "command_line"
    stage.project(root)
    for path in stage.tracker_files(10):
        shutil.copy(path, root / "migrations")
    many = root / "many.sql"
    lines = (_FORMS[n % len(_FORMS)].format(n=n, m=n % 50) for n in range(2000))
    many.write_text("\n".join(lines), encoding="utf-8")
    async with stage.production(setting.folder) as server:
        await stage.create_database(server, NAME)
        address = dbmate.url(server, NAME, stage.OWNER)
        env = {**stage.environment(root, server, NAME), "DATABASE_URL": address}

        def of(*command: str, fails: bool = False) -> Contestant:
            async def run_() -> float:
                return (await program(command, env=env, cwd=root, fails=fails))[0]

            return run_

        contestants = {
            "airlock --help": of(*stage.airlock("--help")),
            "airlock status": of(*stage.airlock("status")),
            "airlock plan": of(*stage.airlock("plan", "bench")),
            "airlock lint": of(*stage.airlock("lint")),
            MANY: of(*stage.airlock("lint", str(many)), fails=True),
            "squawk": of(str(linter), str(many), fails=True),
            "dbmate --help": of(str(peer), "--help"),
            "dbmate status": of(*dbmate.command(peer, root / "migrations", "status")),
        }
        await contestants["airlock --help"]()  # the first one compiles
        got = await interleaved(contestants, rounds=setting.times(15), say=setting.say)
    shutil.rmtree(root)
    peers = {"airlock --help": "dbmate --help", "airlock lint": None, MANY: "squawk"}
    return [_row(name, got, peers.get(name, "dbmate status")) for name in got if name[:3] == "air"]


def _row(name: str, got: dict[str, list[float]], peer: str | None) -> Row:
    reads = name not in ("airlock --help", MANY)
    must_s = MANY_S if name == MANY else MUST_S
    return Row(
        what=f"{name}, ten migrations pending" if reads else name,
        ours=median(got[name]),
        peer=median(got[peer]) if peer else None,
        peer_name=peer or "",
        must=f"< {must_s} s",
        holds=median(got[name]) < must_s,
        note=spread(got[name]),
    )
