"""A refresh of staging, beside a bare restore of the same snapshot and masking UPDATEs by hand."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airlock import settings, snapshot
from airlock.postgres import connect
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

NAME, STAGING = "tracker", "tracker_staging"
DEALS = 600_000
TIMES_MUST = 1.5
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

    async def peer(self) -> float:
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
        async with connect(url) as conn:
            await conn.execute(by_hand())
        seconds = time.monotonic() - began
        await stage.drop_database(self.staging, "by_hand")
        shutil.rmtree(goal, ignore_errors=True)
        return seconds


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
        return [await _measured(setting, each, production, staging) for each in providers]


async def _measured(setting: Setting, provider: str, production: Server, staging: Server) -> Row:
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
    contestants: dict[str, Contestant] = {
        f"{provider}: refresh": contest.ours,
        f"{provider}: by hand": contest.peer,
    }
    got = await interleaved(contestants, rounds=setting.times(1), say=setting.say)
    ours, peer = got.values()
    async with connect(production.url(NAME)) as conn:
        size = await conn.fetchval("SELECT pg_database_size($1)", NAME) / 10**9
    shutil.rmtree(root)
    last = contest.seen[-1]
    steps = ", ".join(f"{name} {last[name]:.1f} s" for name in ("mask", "swap_databases"))
    by_hand_name = {
        "physical": "clone, pg_dump -j2 -Z1, pg_restore -j2, UPDATEs",
        "logical": "pg_restore -j2, UPDATEs",
    }
    return Row(
        what=f"masked refresh from a {provider} snapshot, {size:.2f} GB",
        ours=median(ours),
        peer=median(peer),
        peer_name=by_hand_name[provider],
        must=f"at most {TIMES_MUST} times as long",
        holds=median(ours) <= TIMES_MUST * median(peer),
        note=f"{steps}; ours {spread(ours)}, peer {spread(peer)}; "
        f"peak memory {last['peak_bytes'] / 10**6:.0f} MB",
    )


def _mask() -> str:
    path: Path = CHECKOUT / "examples" / "ma_tracker" / "mask.toml"
    return path.read_text(encoding="utf-8").replace("\n[", "\n[targets.staging.mask.")
