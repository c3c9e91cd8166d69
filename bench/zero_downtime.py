"""What clients of a table wait while it is changed: at one go, by the safe path, and not at all."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import asyncpg

from airlock import deploy as steps
from airlock import ledger, settings
from airlock.errors import Transient
from airlock.ledger import Lease
from airlock.postgres import TABLES_S, within
from airlock.request import DeployRequest
from airlock.server import Server
from bench import clients, stage
from bench.clients import Seen
from bench.rounds import CHECKOUT, Contestant, Row, Setting, interleaved, median, spread
from bench.table_clients import CLIENTS, PERIOD_S
from tests.people import connect

# A folder for each change: naive.sql, the safe path as migrations, and what proves that it is done.
SQL = CHECKOUT / "bench" / "changes"
CHANGES = {
    "index": "index",
    "foreign_key": "foreign key",
    "not_null": "SET NOT NULL",
    "volatile_default": "column with a volatile default",
    "int_to_bigint": "int to bigint",
}
INSTANT = "instant"

ROWS = 2_000_000
BASE, CHANGED = "trades", "changed"
BEFORE_S, AFTER_S = 1.0, 0.5
MUST_S, MUST_CONTROLS, MUST_RATIO = 0.25, 3, 10
READER_S, READER_MUST_S = 5.0, 0.3
MUST_TRIES = 3
# Whether the role may lower deadlock_timeout.
GRANTS = {"autovacuum": True, "autovacuum, without the GRANT": False}
# What one would do by hand: a lock_timeout, and again.
PEER_LOCK_MS, PEER_TRIES, PEER_PAUSE_S = 200, 15, 0.2
AUTOVACUUM_COMES_S = 60

# Autovacuum finds something to do after few changes, and takes its time.
VACUUM_SLOWLY = """
ALTER TABLE trades SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
UPDATE trades SET touched = touched + 1 WHERE id <= 20000;"""
VACUUMED = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'trades'::regclass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the clients met while something was done, and when that was."""

    seen: Seen
    since: float
    until: float

    @property
    def took_s(self) -> float:
        return self.until - self.since

    def stall_s(self, kind: str = "", *, within_s: float = float("inf")) -> float:
        """The longest wait, in seconds. A request that was due just before may have met it."""
        until = min(self.until, self.since + within_s)
        return self.seen.longest(kind, since=self.since - PERIOD_S, until=until)


class Tries(logging.Handler):
    """Counts the tries that did not get the lock, by what the runner says of them."""

    def __init__(self) -> None:
        super().__init__()
        self.vain = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.vain += str(record.msg).startswith("%s: try %d")


@dataclass(slots=True, kw_only=True)
class Contest:
    """A server with the table, which each contestant changes in a copy of its own.

    watched, tries: what was seen, by contestant, in the order of the rounds.
    """

    server: Server
    root: Path
    reader_s: float
    watched: dict[str, list[Watched]] = field(default_factory=dict)
    tries: dict[str, list[int]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url(CHANGED, stage.OWNER)

    def contestants(self) -> dict[str, Contestant]:
        """Each answers with the longest stall, in seconds."""
        made: dict[str, Contestant] = {}
        for name in CHANGES:
            made |= self._pair(name, name, nullcontext)
        made |= self._pair("reader", INSTANT, self._reader)
        made["control"] = self._control
        for title, may_lower in GRANTS.items():
            made[title] = self._autovacuum(title, may_lower=may_lower)
        return made

    def _pair(
        self, title: str, name: str, beside: Callable[[], AbstractAsyncContextManager[None]]
    ) -> dict[str, Contestant]:
        async def at_once() -> float:
            async with self._fresh(name), self._clients(f"{title}, at once"), beside():
                await self._at_once(name)
            return self.watched[f"{title}, at once"][-1].stall_s()

        async def ours() -> float:
            async with self._fresh(name) as lease, self._clients(f"{title}, ours"), beside():
                await self._by_airlock(f"{title}, ours", lease)
            return self.watched[f"{title}, ours"][-1].stall_s()

        return {f"{title}, at once": at_once, f"{title}, ours": ours}

    async def _control(self) -> float:
        """Nothing is changed, for as long as the longest safe path of the last round took."""
        longest_s = max(self.watched[f"{name}, ours"][-1].took_s for name in CHANGES)
        await self._copy()
        async with self._clients("control"):
            await asyncio.sleep(longest_s)
        return self.watched["control"][-1].stall_s()

    def _autovacuum(self, title: str, *, may_lower: bool) -> Contestant:
        async def ours() -> float:
            await self.let_lower(may_lower)
            async with self._fresh(INSTANT, is_done=False) as lease, self._vacuuming():
                # The peer first: without the lock it changes nothing.
                self.tries.setdefault(f"{title}, peer", []).append(await self._with_lock_timeout())
                async with self._clients(f"{title}, ours"):
                    await self._until_vacuumed()
                    with suppress(Transient):  # in all its tries, which the row shows
                        await self._by_airlock(f"{title}, ours", lease)
            await self.let_lower(True)
            return self.watched[f"{title}, ours"][-1].stall_s()

        return ours

    async def let_lower(self, may: bool) -> None:
        """Let the role lower deadlock_timeout, as docs/operations.md advises, or not."""
        word, to = ("GRANT", "TO") if may else ("REVOKE", "FROM")
        if self.server.binaries.major >= 15:
            async with connect(self.server.url()) as superuser:
                await superuser.execute(
                    f"{word} SET ON PARAMETER deadlock_timeout {to} {stage.OWNER}"
                )

    # ------------------------------------------------------------ what is done

    async def _at_once(self, name: str) -> None:
        async with connect(self.url) as conn:
            with within(conn, TABLES_S):
                await conn.execute(_sql(name, "naive"))

    async def _by_airlock(self, contestant: str, lease: Lease) -> None:
        tries, log = Tries(), logging.getLogger("airlock")
        log.addHandler(tries)
        log.setLevel(logging.INFO)
        try:
            target = settings.target("bench")
            async with ledger.journal(target, lease, "apply_plan") as conn:
                await steps.run_plan(conn, lease, (await ledger.deploy(conn, lease.deploy)).planned)
        finally:
            log.removeHandler(tries)
            log.setLevel(logging.NOTSET)
            self.tries.setdefault(contestant, []).append(tries.vain + 1)

    async def _with_lock_timeout(self) -> int:
        """How many tries were needed; one more than there are where none was enough."""
        async with connect(self.url) as conn:
            await conn.execute(f"SET lock_timeout = {PEER_LOCK_MS}")
            for number in range(1, PEER_TRIES + 1):
                try:
                    await conn.execute("ALTER TABLE trades ADD COLUMN by_hand text")
                except asyncpg.LockNotAvailableError:
                    await asyncio.sleep(PEER_PAUSE_S)
                else:
                    return number
        return PEER_TRIES + 1

    # ------------------------------------------------------------ the circumstances

    async def _copy(self) -> None:
        await stage.drop_database(self.server, CHANGED)
        async with connect(self.server.url()) as superuser:
            strategy = "STRATEGY file_copy" if self.server.binaries.major >= 15 else ""
            await superuser.execute(
                f"CREATE DATABASE {CHANGED} TEMPLATE {BASE} OWNER {stage.OWNER} {strategy}"
            )
            # What the copy left to be written must not be anybody's disk wait.
            await superuser.execute("CHECKPOINT")

    @asynccontextmanager
    async def _fresh(self, name: str, *, is_done: bool = True) -> AsyncGenerator[Lease]:
        """A copy in which the change is planned. When the block ends it has been made.

        is_done: whether that is seen to.
        """
        await self._copy()
        shutil.rmtree(self.root / "migrations")
        shutil.copytree(SQL / name / "migrations", self.root / "migrations")
        lease = await steps.open_deploy(DeployRequest(target="bench"))
        assert lease is not None
        yield lease
        async with connect(self.url) as conn:
            if is_done and not await conn.fetchval(_sql(name, "proof")):
                raise RuntimeError(f"{name} was not done, or not whole; see proof.sql there.")

    @asynccontextmanager
    async def _clients(self, contestant: str) -> AsyncGenerator[None]:
        async with clients.running("bench.table_clients", self.url) as seen:
            await asyncio.sleep(BEFORE_S)
            since = time.monotonic()
            yield
            until = time.monotonic()
            await asyncio.sleep(AFTER_S)
        watched = Watched(seen=seen, since=since, until=until)
        self.watched.setdefault(contestant, []).append(watched)

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[None]:
        """Somebody who has read the table, and whose transaction goes on for a while."""
        async with connect(self.url) as conn:
            await conn.execute("BEGIN; SELECT FROM trades WHERE id = 1")
            ending = asyncio.create_task(
                conn.execute(f"SELECT pg_catalog.pg_sleep({self.reader_s}); COMMIT")
            )
            yield
            await ending

    @asynccontextmanager
    async def _vacuuming(self) -> AsyncGenerator[None]:
        """Autovacuum is at work on the table, and comes again when it was sent away."""
        async with connect(self.server.url()) as superuser:
            await superuser.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
            await superuser.execute("SELECT pg_reload_conf()")
            async with connect(self.url) as conn:
                await conn.execute(VACUUM_SLOWLY)
            await self._until_vacuumed()
            yield
            await superuser.execute("ALTER SYSTEM RESET autovacuum_naptime")
            await superuser.execute("SELECT pg_reload_conf()")

    async def _until_vacuumed(self) -> None:
        async with (
            connect(self.server.url(CHANGED)) as superuser,
            asyncio.timeout(AUTOVACUUM_COMES_S),
        ):
            while not await superuser.fetchval(VACUUMED):  # noqa: ASYNC110 – a worker sets it
                await asyncio.sleep(0.1)


def _sql(name: str, file: str) -> str:
    return (SQL / name / f"{file}.sql").read_text(encoding="utf-8")


async def run(setting: Setting) -> list[Row]:
    root = setting.folder / "zero_downtime"
    async with stage.production(setting.folder) as server:
        await _prepare(server, 50_000 if setting.quick else ROWS, setting)
        stage.project(root)
        contest = Contest(server=server, root=root, reader_s=1.0 if setting.quick else READER_S)
        await contest.let_lower(True)
        with mock.patch.dict(os.environ, stage.environment(root, server, CHANGED)):
            await interleaved(contest.contestants(), rounds=setting.times(1), say=setting.say)
    shutil.rmtree(root)
    changes = [_change(contest, name) for name in CHANGES]
    return [*changes, _reader(contest), *(_autovacuum(contest, title) for title in GRANTS)]


async def _prepare(server: Server, rows: int, setting: Setting) -> None:
    setting.say(f"loading {rows:,} rows")
    await stage.create_database(server, BASE)
    async with connect(server.url(BASE, stage.OWNER)) as conn:
        table = (SQL / "table.sql").read_text(encoding="utf-8")
        with within(conn, TABLES_S):
            await conn.execute(table.replace(":rows", str(rows)))
            await conn.execute("VACUUM (FREEZE, ANALYZE)")


# ---------------------------------------------------------------- rows


def _change(contest: Contest, name: str) -> Row:
    ours, at_once = contest.watched[f"{name}, ours"], contest.watched[f"{name}, at once"]
    control_s = median(
        [
            alone.stall_s(within_s=changed.took_s)
            for alone, changed in zip(contest.watched["control"], ours, strict=True)
        ]
    )
    stall_s, peer_s = _stall(ours), _stall(at_once)
    small = stall_s < MUST_S or stall_s < MUST_CONTROLS * control_s
    return Row(
        what=f"{CHANGES[name]}: longest stall of {CLIENTS} clients",
        ours=stall_s,
        peer=peer_s,
        peer_name="at one go",
        must=f"< {MUST_S} s or < {MUST_CONTROLS} × the control's, and {MUST_RATIO} × shorter",
        holds=small and peer_s >= MUST_RATIO * stall_s and not _failed(ours),
        note=f"control {control_s:.3g} s; {_details(ours)}; at one go {_details(at_once)}",
    )


def _reader(contest: Contest) -> Row:
    ours, at_once = contest.watched["reader, ours"], contest.watched["reader, at once"]
    return Row(
        what=f"instant ALTER behind a {contest.reader_s:g} s reader: longest stall",
        ours=_stall(ours),
        peer=_stall(at_once),
        peer_name="at one go",
        must=f"< {READER_MUST_S} s",
        holds=_stall(ours) < READER_MUST_S and not _failed(ours),
        note=f"tries {_counts(contest.tries['reader, ours'])}; {_details(ours)}",
    )


def _autovacuum(contest: Contest, title: str) -> Row:
    ours, peer = contest.tries[f"{title}, ours"], contest.tries[f"{title}, peer"]
    watched = contest.watched[f"{title}, ours"]
    may = "may" if GRANTS[title] else "may not"
    vain = "; the peer gave up" if max(peer) > PEER_TRIES else ""
    return Row(
        what=f"ALTER while autovacuum works on the table, by a role that {may} lower "
        "deadlock_timeout: tries",
        ours=max(ours),
        peer=max(peer),
        peer_name=f"lock_timeout {PEER_LOCK_MS} ms",
        unit="tries",
        must=f"at most {MUST_TRIES}",
        holds=max(ours) <= MUST_TRIES and not _failed(watched),
        note=f"{_counts(ours)}{vain}; longest stall {_stall(watched):.3g} s",
    )


def _stall(watched: Sequence[Watched]) -> float:
    return median([each.stall_s() for each in watched])


def _failed(watched: Sequence[Watched]) -> int:
    return sum(each.seen.failed for each in watched)


def _details(watched: Sequence[Watched]) -> str:
    parts = [
        f"{kind}s {_range([each.stall_s(kind) for each in watched])}" for kind in ("read", "write")
    ]
    failed = _failed(watched)
    said = f", {failed} failed: {watched[-1].seen.said()}" if failed else ""
    return f"{', '.join(parts)}, took {median([each.took_s for each in watched]):.3g} s{said}"


def _range(seconds: Sequence[float]) -> str:
    return spread(seconds) if len(seconds) > 1 else f"{seconds[0]:.3g}"


def _counts(tries: Sequence[int]) -> str:
    return ", ".join(map(str, tries))
