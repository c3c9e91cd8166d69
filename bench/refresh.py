"""A refresh of staging, beside a bare restore of the same snapshot and masking UPDATEs by hand.

What a refresh may take at most is measured against the restore alone, whatever server it is on; a
physical snapshot brought to staging's server by pg_dump stands beside it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from airlock import settings, snapshot
from airlock.server import Server
from airlock.snapshot import Snapshot
from bench import stage
from bench.rounds import (
    CHECKOUT,
    Contestant,
    Row,
    Setting,
    interleaved,
    json_program,
    median,
    program,
    spread,
)
from examples.ma_tracker import load_data
from tests.people import connect

NAME, STAGING = "tracker", "tracker_staging"
DEALS = 600_000
TIMES_MUST = 1.5
# By provider, what is restored and masked by hand; the first is what ours is held against.
PEERS = {
    "physical": {
        "clone, UPDATEs on it": "bare",
        "clone, pg_dump -j2 -Z1, pg_restore -j2, UPDATEs": "dumped",
    },
    "logical": {"pg_restore -j2, UPDATEs": "dumped"},
}
PROJECT = """
[targets.bench.snapshot]
provider = "{provider}"
[targets.staging]
database_url_env = "AIRLOCK_BENCH_STAGING_URL"
[targets.staging.refresh]
source = "bench"
admin_url_env = "AIRLOCK_BENCH_ADMIN_URL"
key_env = "AIRLOCK_BENCH_MASK_KEY"
keep = 0
"""
# What mask.toml does, as one would write it: one UPDATE for each table, without its triggers.
BY_HAND = """
SET session_replication_role = replica;
UPDATE sources SET metadata = {json_metadata};
UPDATE deals SET deal_value_usd = round(deal_value_usd * (0.9 + random() * 0.2)::numeric, 2),
    details = {json_details};
UPDATE source_monitors SET settings = {json_settings};
UPDATE source_monitor_runs SET error = {error} WHERE error IS NOT NULL;
UPDATE deal_intelligence SET body = {body}, payload = {json_payload};
UPDATE deal_history SET changed_by = {changed_by};
UPDATE source_duplicates SET metadata = {json_metadata};
UPDATE deal_promotions SET decided_by = {decided_by}, reason = {reason};
UPDATE deal_research SET analyst = {analyst}, title = {title}, summary = {summary},
    findings = {json_findings};
UPDATE deal_research_citations SET quotation = {quotation};
UPDATE alert_rules SET name = {name}, condition = {json_condition};
UPDATE alerts SET message = {message}, payload = {json_payload};
ANALYZE;
"""


def by_hand() -> str:
    """The statements, each value replaced by the beginning of a keyed hash of it."""

    class Values(dict[str, str]):
        def __missing__(self, key: str) -> str:
            column = key.removeprefix("json_")
            made = f"left(encode(sha256(convert_to('a key' || {column}::text, 'UTF8')), 'hex'), 16)"
            return f"jsonb_build_object('masked', {made})" if column != key else made

    return BY_HAND.format_map(Values())


@dataclass(slots=True, kw_only=True)
class Contest:
    """Production's snapshot, the server that staging is on, and what was seen."""

    setting: Setting
    provider: str
    taken: Snapshot
    staging: Server
    env: Mapping[str, str]
    seen: list[dict[str, float]] = field(default_factory=list)

    async def ours(self) -> float:
        await stage.drop_database(self.staging, STAGING)
        await stage.create_database(self.staging, STAGING)
        found = await json_program([sys.executable, "-m", "bench.one_refresh"], self.env)
        self.seen.append(found)
        return found["seconds"]

    async def bare(self) -> float:
        """The snapshot started where it was restored, and masked there."""
        began = time.monotonic()
        async with snapshot.restore(self.taken, settings.target("bench"), name="by-hand") as clone:
            assert clone.superuser_url is not None
            await _mask_by_hand(clone.superuser_url)
            # Ending the clone is not counted.
            return time.monotonic() - began

    async def dumped(self) -> float:
        """The snapshot in a database of staging's server, and masked there."""
        await stage.drop_database(self.staging, "by_hand")
        tools = self.staging.binaries
        url = self.staging.url("by_hand")
        restore = [str(tools.tool("pg_restore")), "-j2", "--no-owner", f"--dbname={url}"]
        goal = self.setting.folder / "dump"
        shutil.rmtree(goal, ignore_errors=True)
        began = time.monotonic()
        await stage.create_database(self.staging, "by_hand")
        if self.provider == "logical":
            await program([*restore, str(self.taken.path / "data")])
        else:
            dump = [str(tools.tool("pg_dump")), "-Fd", "-j2", "-Z1", f"--file={goal}"]
            target = settings.target("bench")
            async with snapshot.restore(self.taken, target, name="by-hand") as clone:
                await program([*dump, f"--dbname={clone.superuser_url}"])
                await program([*restore, str(goal)])
        await _mask_by_hand(url)
        seconds = time.monotonic() - began
        await stage.drop_database(self.staging, "by_hand")
        shutil.rmtree(goal, ignore_errors=True)
        return seconds


async def _mask_by_hand(url: str) -> None:
    async with connect(url) as conn:
        await conn.execute(by_hand())


async def run(setting: Setting) -> list[Row]:
    deals = 3_000 if setting.quick else DEALS
    async with (
        stage.production(setting.folder) as production,
        stage.production(setting.folder, "staging") as staging,
    ):
        await stage.create_database(production, NAME)
        setting.say(f"loading {deals:,} deals")
        async with connect(production.url(NAME, stage.OWNER)) as conn:
            await stage.run_files(conn, stage.tracker_files(10))
            await load_data.load(conn, deals)
        async with connect(production.url(NAME)) as superuser:
            await superuser.execute("VACUUM ANALYZE")
        providers = ("physical", "logical")
        measured = [await _measured(setting, each, production, staging) for each in providers]
    return [row for rows in measured for row in rows]


async def _measured(
    setting: Setting, provider: str, production: Server, staging: Server
) -> list[Row]:
    root = setting.folder / "refresh"
    stage.project(root, PROJECT.format(provider=provider) + _mask())
    env = stage.environment(root, production, NAME) | {
        "AIRLOCK_BENCH_STAGING_URL": staging.url(STAGING, stage.OWNER),
        "AIRLOCK_BENCH_ADMIN_URL": staging.url(),
        "AIRLOCK_BENCH_MASK_KEY": "a key of the bench, which masks rows of nobody",
    }
    os.environ |= {name: text for name, text in env.items() if name.startswith("AIRLOCK_")}
    setting.say(f"{provider}: the snapshot")
    taken = await snapshot.take(settings.target("bench"), head=None)
    contest = Contest(setting=setting, provider=provider, taken=taken, staging=staging, env=env)
    peers = {name: getattr(contest, method) for name, method in PEERS[provider].items()}
    contestants: dict[str, Contestant] = {"refresh": contest.ours, **peers}
    named = {f"{provider}: {name}": each for name, each in contestants.items()}
    got = await interleaved(named, rounds=setting.times(1), say=setting.say)
    async with connect(production.url(NAME)) as conn:
        size = await conn.fetchval("SELECT pg_database_size($1)", NAME) / 10**9
    shutil.rmtree(root)
    ours, bare, *others = got.values()
    row = _row(contest, size, ours, bare, next(iter(peers)))
    # The slowest of ours beside the fastest peer: no round is excused by the machine.
    holds = max(ours) <= TIMES_MUST * min(bare)
    kept = replace(row, must=f"at most {TIMES_MUST} times as long", holds=holds)
    names = list(peers)[1:]
    return [kept, *(_row(contest, size, ours, *each) for each in zip(others, names, strict=True))]


def _row(
    contest: Contest, size: float, ours: list[float], peer: list[float], peer_name: str
) -> Row:
    last = contest.seen[-1]
    steps = ", ".join(f"{name} {last[name]:.1f} s" for name in ("mask", "swap_databases"))
    return Row(
        what=f"masked refresh from a {contest.provider} snapshot, {size:.2f} GB",
        ours=median(ours),
        peer=median(peer),
        peer_name=peer_name,
        note=f"{steps}; ours {spread(ours)}, peer {spread(peer)}; "
        f"peak memory {last['peak_bytes'] / 10**6:.0f} MB",
    )


def _mask() -> str:
    path: Path = CHECKOUT / "examples" / "ma_tracker" / "mask.toml"
    return path.read_text(encoding="utf-8").replace("\n[", "\n[targets.staging.mask.")
