"""The M&A tracker's migrations and service, on a real server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from airlock import migration
from airlock.migration import Migration
from airlock.postgres import Conn
from airlock.server import Server
from airlock.service import table
from tests.patience import PATIENCE_S, until
from tests.people import connect

ROOT = Path(__file__).parents[2]
TRACKER = ROOT / "examples" / "ma_tracker"
MIGRATIONS = tuple(migration.read(path) for path in sorted((ROOT / "migrations").glob("*.sql")))

# Passes a listening socket on as systemd does: descriptor 3, and our own pid.
PASS_SOCKET = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.fixture(scope="module", autouse=True)
def tracker_modules() -> Iterator[None]:
    """The example's folder is no package; its modules are imported as a script would."""
    sys.path.insert(0, str(TRACKER))
    yield
    sys.path.remove(str(TRACKER))


async def run_script(conn: Conn, sql: str) -> None:
    """Forward or reverse SQL, in the transactions that Airlock gives it."""
    for segment in migration.script(sql):
        if not segment.transactional:
            await conn.execute(segment.statements[0].text)
            continue
        async with conn.transaction():
            for statement in segment.statements:
                await conn.execute(statement.text)


async def migrate(conn: Conn, up_to: int) -> None:
    for step in MIGRATIONS[:up_to]:
        await run_script(conn, step.forward)


async def schema(database: Any) -> str:
    """All of ``pg_dump -s``, but for the random word that newer versions put around it."""
    process = await asyncio.create_subprocess_exec(
        str(database.server.binaries.tool("pg_dump")),
        "--schema-only",
        f"--dbname={database.url}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    lines = out.decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


async def contents(conn: Conn) -> dict[str, list[str]]:
    """Every row of every table, as text, in an order of its own."""
    tables = await conn.fetch(
        "SELECT relname FROM pg_catalog.pg_class WHERE relkind = 'r' "
        "AND relnamespace = 'public'::regnamespace ORDER BY relname"
    )
    return {
        name: [row[0] for row in await conn.fetch(f"SELECT t::text FROM {name} t ORDER BY 1")]
        for (name,) in tables
    }


# ---------------------------------------------------------------- migrations


def test_the_migrations_are_those_of_the_team_in_their_template() -> None:
    assert [step.label for step in MIGRATIONS] == [
        "001_initial_schema",
        "002_source_monitors",
        "003_deal_intelligence",
        "004_ticker_master",
        "005_deal_history",
        "006_fix_duplicate_sources",
        "007_production_tracking",
        "008_deal_research",
        "009_alert_notifications",
        "010_halt_monitoring",
    ]
    for step in MIGRATIONS:
        assert step.title == step.name.replace("_", " ").title()
        assert step.purpose
        assert step.author == "M&A Tracker team"
        assert step.date


async def check_round_trips(database: Any) -> None:
    async with connect(database.url) as conn:
        for step in MIGRATIONS:
            before = await schema(database)
            await run_script(conn, step.forward)
            after = await schema(database)
            assert after != before, step.label
            await run_script(conn, step.reverse)
            assert await schema(database) == before, step.label
            await run_script(conn, step.forward)
            assert await schema(database) == after, step.label
        for step in reversed(MIGRATIONS):
            await run_script(conn, step.reverse)


async def test_every_migration_can_be_undone_exactly_and_done_again(database: Any) -> None:
    empty = await schema(database)
    await check_round_trips(database)
    assert await schema(database) == empty


@pytest.mark.parametrize("major", [16, 18])
async def test_other_versions_of_postgresql_agree(
    major: int,
    pg: Server,
    pg_of: Callable[[int | None], Awaitable[Server]],
    database_on: Callable[..., Awaitable[Any]],
) -> None:
    server = await pg_of(major)
    if server is pg:
        pytest.skip("this is the version of the other tests")
    await check_round_trips(await database_on(server))


async def test_every_table_view_column_type_and_function_has_a_comment(database: Any) -> None:
    async with connect(database.url) as conn:
        await migrate(conn, 10)
        bare = await conn.fetch(
            """
            SELECT c.relname || '.' || a.attname AS name
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
                AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
            UNION ALL
            SELECT c.relname FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
                AND obj_description(c.oid, 'pg_class') IS NULL
            UNION ALL
            SELECT t.typname FROM pg_catalog.pg_type t
            WHERE t.typnamespace = 'public'::regnamespace AND t.typtype = 'e'
                AND obj_description(t.oid, 'pg_type') IS NULL
            UNION ALL
            SELECT p.proname FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace
                AND obj_description(p.oid, 'pg_proc') IS NULL
            """
        )
    assert [row["name"] for row in bare] == []


# ---------------------------------------------------------------- 006


def fix_duplicates() -> Migration:
    return MIGRATIONS[5]


async def test_006_merges_duplicates_and_its_reverse_puts_every_row_back(database: Any) -> None:
    import load_data

    async with connect(database.url) as conn:
        await migrate(conn, 5)
        duplicates = await load_data.load_duplicate_sources(conn, places=40)
        before = await contents(conn)
        assert duplicates > 40

        await run_script(conn, fix_duplicates().forward)
        merged = await contents(conn)
        assert len(merged["sources"]) == 40
        assert len(merged["source_duplicates"]) == duplicates
        for table in ("deals", "source_monitors", "deal_intelligence", "deal_history"):
            assert len(merged[table]) == len(before[table]), table
        assert merged["deals"] != before["deals"]

        await run_script(conn, fix_duplicates().reverse)
        assert await contents(conn) == before


async def test_006_keeps_the_oldest_source_and_points_its_children_there(database: Any) -> None:
    import load_data

    async with connect(database.url) as conn:
        await migrate(conn, 5)
        await load_data.load_duplicate_sources(conn, places=8)
        await run_script(conn, fix_duplicates().forward)
        copies = await conn.fetch("SELECT DISTINCT metadata ->> 'copy' AS copy FROM sources")
        assert [row["copy"] for row in copies] == ["0"]
        children = await conn.fetch(
            "SELECT s.name, count(DISTINCT d.id) AS deals, count(DISTINCT m.id) AS monitors, "
            "count(DISTINCT i.id) AS items FROM sources s "
            "JOIN deals d ON d.source_id = s.id JOIN source_monitors m ON m.source_id = s.id "
            "JOIN deal_intelligence i ON i.source_id = s.id GROUP BY s.name ORDER BY s.name"
        )
    # Wire n stands there once, and n % 4 times more.
    expected = [(f"Wire {n}", 1 + n % 4, 1 + n % 4, 2 + n % 4 * 2) for n in range(1, 9)]
    assert [tuple(row) for row in children] == expected


async def test_006_keeps_new_duplicates_out(database: Any) -> None:
    insert = "INSERT INTO sources (name, url, kind) VALUES ('x', $1, 'news')"
    async with connect(database.url) as conn:
        await migrate(conn, 6)
        await conn.execute(insert, "https://www.wire.example/Deals?page=1")
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute(insert, "http://WIRE.example/Deals?page=1#top")
        await conn.execute(insert, "https://www.wire.example/deals?page=1")


async def test_what_was_moved_again_since_006_stays_where_it_is(database: Any) -> None:
    import load_data

    async with connect(database.url) as conn:
        await migrate(conn, 5)
        await load_data.load_duplicate_sources(conn, places=4)
        await run_script(conn, fix_duplicates().forward)
        deal = await conn.fetchval("SELECT deal_ids[1] FROM source_duplicates LIMIT 1")
        await conn.execute("UPDATE deals SET source_id = NULL WHERE id = $1", deal)
        await run_script(conn, fix_duplicates().reverse)
        assert await conn.fetchval("SELECT source_id FROM deals WHERE id = $1", deal) is None


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("version", [9, 10])
async def test_the_same_seed_gives_the_same_rows(
    version: int, pg: Server, database_on: Callable[..., Awaitable[Any]]
) -> None:
    import load_data

    found = []
    for _ in range(2):
        async with connect((await database_on(pg)).url) as conn:
            await migrate(conn, version)
            loaded = await load_data.load(conn, 200)
            rows = await contents(conn)
            assert len(rows["deal_intelligence"]) == loaded.intelligence
            found.append((loaded, rows["deals"], rows["sources"]))
    assert found[0] == found[1]


async def test_the_usual_load_is_more_than_200_000_rows(database: Any) -> None:
    import load_data

    async with connect(database.url) as conn:
        await migrate(conn, 9)
        loaded = await load_data.load(conn)
        # Exact, because ANALYZE reads every page of tables of this size.
        rows = await conn.fetchval(
            "SELECT sum(reltuples) FROM pg_catalog.pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    assert loaded.total >= 200_000
    assert rows >= loaded.total


# ---------------------------------------------------------------- the service


def listening_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def address(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def service(
    database_url: str, *, listener: socket.socket | None = None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One start_server.py, ended afterwards."""
    command = [sys.executable, str(TRACKER / "python-service" / "start_server.py")]
    fds: tuple[int, ...] = ()
    if listener is not None:
        fds = (listener.fileno(),)
        command = [sys.executable, "-c", PASS_SOCKET, str(fds[0]), *command]
        environment["LISTEN_FDS"] = "1"
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url, **environment},
        pass_fds=fds,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def healthy(base_url: str, process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The first good answer of /health."""
    found: dict[str, Any] = {}

    async def answers() -> bool:
        with suppress(httpx.ConnectError):
            response = await client.get("/health")
            if response.status_code == 200:
                found.update(response.json())
        return bool(found) or process.returncode is not None

    async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=PATIENCE_S) as client:
        await until(answers)
    if not found:
        output = await process.stdout.read(5000) if process.stdout else b""
        raise AssertionError(f"The service is not healthy: {output.decode()}")
    return found


@pytest.mark.parametrize("version", [9, 10])
async def test_the_service_reads_and_writes_on_both_schemas(version: int, database: Any) -> None:
    import load_data

    async with connect(database.url) as conn:
        await migrate(conn, version)
        await load_data.load(conn, 100)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening_socket())
        process = await stack.enter_async_context(
            service(database.url, listener=listener, RELEASE="r1", AIRLOCK_INSTANCE="i1")
        )
        health = await healthy(address(listener), process)
        assert health == {
            "status": "ok",
            "release": "r1",
            "instance": "i1",
            "pid": process.pid,
            "schema_version": None,
        }
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=address(listener), trust_env=False, timeout=PATIENCE_S)
        )
        new = {"acquirer_name": "A", "target_name": "B", "announced_on": "2025-09-08"}
        added = await client.post("/deals", json={**new, "offer_price": "12.5"})
        assert added.status_code == 201
        key = added.json()["id"]
        changed = await client.patch(f"/deals/{key}", json={"status": "completed"})
        assert (changed.json()["status"], changed.json()["offer_price"]) == ("completed", "12.5000")
        assert (await client.get(f"/deals/{key}")).json() == changed.json()
        assert len((await client.get("/deals", params={"limit": 5})).json()) == 5
        alert = await client.post("/alerts", json={"deal_id": key, "message": "closed"})
        assert alert.status_code == 201
        assert (await client.get("/alerts")).status_code == 200
        halt = {"ticker": "T1", "code": "T1", "halted_at": "2025-09-08T14:00:00Z"}
        answers = [await client.post("/halts", json=halt), await client.get("/halts")]
        expected = [201, 200] if version == 10 else [409, 409]
        assert [answer.status_code for answer in answers] == expected


async def test_the_service_shows_the_highest_migration_of_the_ledger(database: Any) -> None:
    async with connect(database.url) as conn:
        await migrate(conn, 9)
        await conn.execute(
            "CREATE SCHEMA airlock; CREATE TABLE airlock.migration (version int, state text);"
            "INSERT INTO airlock.migration "
            "VALUES (8, 'adopted'), (9, 'applied'), (10, 'rolled_back')"
        )
    with listening_socket() as listener:
        async with service(database.url, listener=listener) as process:
            assert (await healthy(address(listener), process))["schema_version"] == 9


async def test_without_a_database_the_service_starts_and_says_so() -> None:
    with listening_socket() as listener:
        nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
        async with (
            service(nowhere, listener=listener),
            httpx.AsyncClient(
                base_url=address(listener), trust_env=False, timeout=PATIENCE_S
            ) as client,
        ):
            response = await client.get("/health")
            assert response.status_code == 503
            assert response.json()["status"] == "unhealthy"
            assert "the database does not answer" in response.json()["reason"]
            assert (await client.get("/deals")).status_code == 503


async def test_the_service_binds_its_own_port_beside_an_older_instance(
    database: Any, port: int
) -> None:
    async with connect(database.url) as conn:
        await migrate(conn, 9)
    async with AsyncExitStack() as stack:
        base_url = f"http://127.0.0.1:{port}"
        old = await stack.enter_async_context(service(database.url, PORT=str(port)))
        assert (await healthy(base_url, old))["pid"] == old.pid
        new = await stack.enter_async_context(service(database.url, PORT=str(port)))

        async def new_one_answers() -> bool:
            return (await healthy(base_url, new))["pid"] == new.pid

        await until(new_one_answers)
        old.terminate()
        assert await asyncio.wait_for(old.wait(), PATIENCE_S) == 0
        assert (await healthy(base_url, new))["pid"] == new.pid


async def test_a_restart_under_traffic_fails_no_request_and_loses_no_write(database: Any) -> None:
    import load_data
    import traffic

    async with connect(database.url) as conn:
        await migrate(conn, 9)
        await load_data.load(conn, 100)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening_socket())
        old = await stack.enter_async_context(service(database.url, listener=listener))
        await healthy(address(listener), old)
        load = traffic.Traffic(address(listener), clients=8, requests_per_s=80)
        await load.start()
        await asyncio.sleep(0.5)
        for _ in range(2):
            new = await stack.enter_async_context(service(database.url, listener=listener))
            await until_log(new, b"Application startup complete")
            old.terminate()
            assert await asyncio.wait_for(old.wait(), PATIENCE_S) == 0
            old = new
        await until(lambda: load.report().sent > 100)
        report = await load.stop()
    assert report.failures == ()
    async with connect(database.url) as conn:
        assert report.writes
        assert await traffic.lost(conn, report.writes) == ()
        await conn.execute("DELETE FROM alerts WHERE id = $1", report_alert(report))
        assert len(await traffic.lost(conn, report.writes)) == 1


async def test_draining_answers_whoever_is_connected_and_then_closes(database: Any) -> None:
    async with connect(database.url) as conn:
        await migrate(conn, 9)
    request = b"GET /deals?limit=1 HTTP/1.1\r\nHost: tracker\r\n\r\n"
    with listening_socket() as listener:
        async with service(database.url, listener=listener) as process:
            await healthy(address(listener), process)
            port = listener.getsockname()[1]
            silent, keeping, halfway = [
                await asyncio.open_connection("127.0.0.1", port) for _ in range(3)
            ]
            assert b"connection: close" not in await answer(keeping, request)
            halfway[1].write(request[:20])
            # The service must have taken all three before it is told to go.
            for _, writer in (silent, keeping, halfway):
                ends = [writer.get_extra_info(end) for end in ("sockname", "peername")]
                await until(lambda ends=ends: table.accepted(*ends))
            process.terminate()
            await until_log(process, b"draining")
            for stream, rest in ((silent, request), (keeping, request), (halfway, request[20:])):
                head = await answer(stream, rest)
                assert head.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in head
                assert await stream[0].read() == b"[]"
                stream[1].close()
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def answer(
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> bytes:
    """The head of the answer; its body is left to read, unless the connection is kept."""
    reader, writer = stream
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower().replace(b"http/", b"HTTP/")
    if b"connection: close" not in head:
        await reader.readexactly(len(b"[]"))
    return head


async def until_log(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while text not in await process.stdout.readline():
            assert process.returncode is None


def report_alert(report: Any) -> str:
    return next(write.id for write in report.writes if write.table == "alerts")
