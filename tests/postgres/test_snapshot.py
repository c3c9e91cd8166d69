"""Snapshots of real servers: taken, verified, restored, kept."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock import binaries, server, snapshot
from airlock.errors import Refused, Transient
from airlock.postgres import Conn
from airlock.settings import ClonePolicy, SnapshotPolicy, Target
from airlock.snapshot import Snapshot
from tests import own
from tests.conftest import Database
from tests.patience import PATIENCE_S, until
from tests.people import connect

ServerOf = Callable[[int | None], Awaitable[server.Server]]
DatabaseOn = Callable[..., Awaitable[Database]]
SCHEMA = """
CREATE TABLE deal (id int PRIMARY KEY, name text NOT NULL, note jsonb);
INSERT INTO deal SELECT n, 'deal ' || n, jsonb_build_object('n', n)
  FROM generate_series(1, 5000) AS n;
CREATE INDEX deal_note ON deal USING gin (note);
"""
CONTENT = "SELECT count(*), sum(hashtextextended(d::text, 0))::text FROM deal AS d"


@pytest.fixture
def make_target(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Target]:
    def make(
        provider: Any = "auto",
        *,
        of: Database = database,
        may_replicate: bool = True,
        dev_url: str | None = None,
        **policy: Any,
    ) -> Target:
        monkeypatch.setenv("TEST_URL", of.url)
        monkeypatch.setenv("TEST_REPLICATION_URL", of.superuser_url if may_replicate else of.url)
        if dev_url:
            monkeypatch.setenv("TEST_DEV_URL", dev_url)
        return Target(
            name="prod",
            root=tmp_path,
            state_dir=tmp_path / ".airlock",
            migrations_dir=tmp_path / "migrations",
            database_url_env="TEST_URL",
            replication_url_env="TEST_REPLICATION_URL",
            snapshot=SnapshotPolicy(provider=provider, **policy),
            clone=ClonePolicy(dev_url_env="TEST_DEV_URL" if dev_url else None),
        )

    return make


@pytest.fixture(autouse=True)
async def content(database: Database) -> tuple[int, str]:
    return await fill(database)


async def fill(database: Database) -> tuple[int, str]:
    async with connect(database.url) as conn:
        await conn.execute(SCHEMA)
        return await read(database.url)


async def read(url: str) -> tuple[int, str]:
    async with connect(url) as conn:
        row = await conn.fetchrow(CONTENT)
        assert row is not None
        return row[0], row[1]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


@pytest.mark.parametrize(
    ("provider", "overlay"), [("physical", True), ("physical", False), ("logical", False)]
)
async def test_what_was_taken_comes_back_as_the_production_role(
    make_target: Callable[..., Target], content: tuple[int, str], database: Database,
    monkeypatch: pytest.MonkeyPatch, provider: str, overlay: bool,
) -> None:  # fmt: skip
    if not overlay:
        monkeypatch.setattr(server, "can_overlay", lambda _: False)
    target = make_target(provider)
    taken = await snapshot.take(target, head="009")
    assert (taken.provider, taken.database, taken.migration_head) == (
        provider,
        database.name,
        "009",
    )
    await snapshot.verify(taken)
    assert snapshot.list_snapshots(target) == (taken,)
    async with snapshot.restore(taken, target, name="rehearsal-1") as clone:
        assert await read(clone.url) == content
        async with connect(clone.url) as conn:
            role = await conn.fetchrow("SELECT user::text, current_setting('is_superuser')")
            assert tuple(role or ()) == ("owner", "off")
            assert await conn.fetchval("SHOW archive_mode") == "off"
            assert await conn.fetchval("SHOW listen_addresses") == ""
            assert await conn.fetchval("SHOW cluster_name") == "airlock clone"
            await conn.execute("ALTER TABLE deal ADD COLUMN price numeric; DELETE FROM deal")
        assert clone.superuser_url is not None
        async with connect(clone.superuser_url) as conn:
            assert await conn.fetchval("SHOW is_superuser") == "on"
    # The clone was written to; the snapshot and production were not.
    await snapshot.verify(taken)
    assert await read(database.url) == content
    assert names_in(target.clones_dir) == []
    for path in [taken.path, *taken.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("major", "provider"), [(16, "physical"), (18, "physical"), (18, "logical")]
)
async def test_other_versions_work_as_well(
    make_target: Callable[..., Target], pg_of: ServerOf, database_on: DatabaseOn,
    major: int, provider: str,
) -> None:  # fmt: skip
    database = await database_on(await pg_of(major))
    content = await fill(database)
    target = make_target(provider, of=database)
    taken = await snapshot.take(target, head=None)
    assert taken.tool_version.startswith(str(major))
    async with snapshot.restore(taken, target, name="r") as clone:
        assert await read(clone.url) == content


async def test_auto_takes_a_base_backup_where_it_may(make_target: Callable[..., Target]) -> None:
    choice = await snapshot.check_restorable(make_target())
    assert choice.provider == "physical"
    assert "postgres may take base backups" in choice.reason


async def test_auto_says_why_it_is_logical(make_target: Callable[..., Target]) -> None:
    target = make_target(may_replicate=False)
    choice = await snapshot.check_restorable(target)
    assert choice.provider == "logical"
    assert choice.reason == "not physical: role owner has no REPLICATION privilege"
    with pytest.raises(Refused, match="owner has no REPLICATION"):
        await snapshot.check_restorable(make_target("physical", may_replicate=False))


async def test_a_pg_hba_that_lets_no_replication_in_is_noticed(
    make_target: Callable[..., Target], pg: server.Server
) -> None:
    hba = pg.data_dir / "pg_hba.conf"
    before = hba.read_text()
    async with connect(pg.url()) as conn:
        try:
            hba.write_text("local all all trust\n")
            await reload(pg, conn)
            choice = await snapshot.check_restorable(make_target())
        finally:
            hba.write_text(before)
            await reload(pg, conn)
    assert choice.provider == "logical"
    assert "a replication connection was refused: no pg_hba.conf entry" in choice.reason


async def reload(pg: server.Server, conn: Conn) -> None:
    """New sessions meet the files as they are now."""
    before = await conn.fetchval("SELECT clock_timestamp()")
    await conn.execute("SELECT pg_reload_conf()")

    async def is_new() -> bool:
        async with connect(pg.url()) as later:
            return await later.fetchval("SELECT pg_conf_load_time()") > before

    await until(is_new)


async def test_two_urls_of_different_databases_are_refused(
    make_target: Callable[..., Target], database_on: DatabaseOn, pg: server.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    target = make_target()
    monkeypatch.setenv("TEST_REPLICATION_URL", (await database_on(pg)).superuser_url)
    with pytest.raises(Refused, match="Both must name the same database"):
        await snapshot.take(target, head=None)


async def test_tools_older_than_the_server_are_refused_before_any_work(
    make_target: Callable[..., Target], pg_of: ServerOf, database_on: DatabaseOn,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    database = await database_on(await pg_of(18))
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path)
    monkeypatch.setattr(binaries, "WHEEL", "no_such_wheel")
    target = make_target("logical", of=database)
    with pytest.raises(Refused, match=r"version 18 or newer.*is version 15"):
        await snapshot.take(target, head=None)
    assert not target.state_dir.exists()


async def test_a_full_disk_is_refused_with_numbers(
    make_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = snapshot.shutil.disk_usage("/")
    monkeypatch.setattr(snapshot.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(Refused, match=r"has 0\.0 GB free; .* need 0\.\d GB"):
        await snapshot.take(make_target(), head=None)


async def test_what_the_role_may_not_read_is_named(
    make_target: Callable[..., Target], database: Database
) -> None:
    async with connect(database.superuser_url) as conn:
        await conn.execute("CREATE TABLE public.secret (); REVOKE ALL ON public.secret FROM owner")
    with pytest.raises(Refused, match=r"owner may not read public\.secret"):
        await snapshot.take(make_target(may_replicate=False), head=None)


async def test_settings_grants_and_memberships_are_in_a_logical_clone(
    make_target: Callable[..., Target], database: Database
) -> None:
    name = database.name
    row = "FROM pg_database WHERE datname = current_database()"
    async with connect(database.superuser_url) as conn:
        await conn.execute(
            f"CREATE ROLE {name}_group; GRANT {name}_group TO owner;"
            f"ALTER DATABASE {name} SET search_path = app, public;"
            f"ALTER ROLE owner IN DATABASE {name} SET statement_timeout = '7s';"
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; COMMENT ON DATABASE {name} IS 'it''s';"
            f"CREATE SCHEMA app AUTHORIZATION {name}_group"
        )
    try:
        target = make_target("logical")
        taken = await snapshot.take(target, head=None)
        async with (
            snapshot.restore(taken, target, name="r") as clone,
            connect(clone.url) as copy,
            connect(database.url) as original,
        ):
            for sql in (
                "SHOW search_path",
                "SHOW statement_timeout",
                f"SELECT pg_has_role('{name}_group', 'MEMBER')",
                f"SELECT datacl::text {row}",
                f"SELECT shobj_description(oid, 'pg_database') {row}",
                f"SELECT pg_get_userbyid(datdba) || datcollate {row}",
            ):
                assert await copy.fetchval(sql) == await original.fetchval(sql), sql
    finally:
        async with connect(database.superuser_url) as conn:
            await conn.execute(f"DROP OWNED BY {name}_group; DROP ROLE {name}_group")


async def test_a_dev_server_gets_a_database_and_loses_it_again(
    make_target: Callable[..., Target], pg_of: ServerOf, content: tuple[int, str]
) -> None:
    dev = await pg_of(16)
    target = make_target(dev_url=dev.url())
    taken = await snapshot.take(target, head=None)
    assert "dev server" in taken.provider_reason
    listing = "SELECT datname FROM pg_database WHERE datname LIKE 'airlock\\_prod\\_%'"
    async with connect(dev.url()) as conn:
        async with snapshot.restore(taken, target, name="r-1") as clone:
            assert await read(clone.url) == content
            async with connect(clone.url) as copy:
                assert await copy.fetchval("SELECT current_user::text") == "owner"
                assert await copy.fetchval("SHOW is_superuser") == "off"
            assert [row[0] for row in await conn.fetch(listing)] == ["airlock_prod_r-1"]
            with pytest.raises(Refused, match="in use by another"):
                async with snapshot.restore(taken, target, name="r-1"):
                    pass
            assert await read(clone.url) == content
        assert await conn.fetch(listing) == []


async def test_leftovers_on_a_dev_server_are_swept(
    make_target: Callable[..., Target], pg_of: ServerOf
) -> None:
    dev = await pg_of(16)
    target = make_target(dev_url=dev.url())
    taken = await snapshot.take(target, head=None)
    async with connect(dev.url()) as conn:
        await conn.execute('CREATE DATABASE "airlock_prod_dead"')
        await conn.execute(snapshot.logical._mark("prod", "airlock_prod_dead"))
        await conn.execute('CREATE DATABASE "airlock_prod_mine"')
        async with snapshot.restore(taken, target, name="r"):
            names = {row[0] for row in await conn.fetch("SELECT datname FROM pg_database")}
        await conn.execute('DROP DATABASE "airlock_prod_mine"')
    assert "airlock_prod_dead" not in names
    assert "airlock_prod_mine" in names


async def test_roles_that_the_dev_server_lacks_are_refused_before_any_work(
    make_target: Callable[..., Target], pg_of: ServerOf, database: Database
) -> None:
    role = f"{database.name}_only_here"
    async with connect(database.superuser_url) as conn:
        await conn.execute(f"CREATE ROLE {role}; CREATE SCHEMA own AUTHORIZATION {role}")
        try:
            target = make_target(dev_url=(await pg_of(16)).url())
            with pytest.raises(Refused, match=f"lacks roles .*: {role}"):
                await snapshot.take(target, head=None)
            assert not target.snapshots_dir.exists()
        finally:
            await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_older_dev_server_is_refused(
    make_target: Callable[..., Target], pg_of: ServerOf, database_on: DatabaseOn, pg: server.Server
) -> None:
    database = await database_on(await pg_of(18))
    with pytest.raises(Refused, match=r"dev server is PostgreSQL 15, production is 18"):
        await snapshot.check_restorable(make_target(of=database, dev_url=pg.url()))


def tampered(taken: Snapshot, how: str) -> str:
    victim = max((taken.path / "data").rglob("*"), key=lambda path: path.stat().st_size)
    if how == "truncated":
        os.truncate(victim, victim.stat().st_size - 1)
    elif how == "missing":
        victim.unlink()
    elif how == "flipped":
        with victim.open("r+b") as file:
            file.seek(100)
            byte = file.read(1)[0]
            file.seek(100)
            file.write(bytes([byte ^ 1]))
    else:
        path = taken.path / "manifest.json"
        document = json.loads(path.read_text())
        document["system_identifier"] = "1"
        path.write_text(json.dumps(document))
        return "manifest.json was edited"
    return victim.name


@pytest.mark.parametrize("provider", ["physical", "logical"])
async def test_a_damaged_snapshot_is_neither_verified_nor_restored(
    make_target: Callable[..., Target], provider: str, tmp_path: Path
) -> None:
    target = make_target(provider)
    taken = await snapshot.take(target, head=None)
    for how in ("truncated", "missing", "flipped", "edited"):
        shutil.copytree(taken.path, tmp_path / how)
        damaged = dataclasses.replace(taken, path=tmp_path / how)
        named = tampered(damaged, how)
        with pytest.raises(Refused, match=named):
            await snapshot.verify(damaged)
        with pytest.raises(Refused, match=named):
            async with snapshot.restore(damaged, target, name="r"):
                pass
        assert names_in(target.clones_dir) == []
    await snapshot.verify(taken)


@pytest.mark.parametrize("how", ["truncated", "missing", "flipped", "edited"])
async def test_a_snapshot_damaged_since_it_was_taken_by_this_process_is_not_restored(
    make_target: Callable[..., Target], how: str
) -> None:
    target = make_target("logical")
    taken = await snapshot.take(target, head=None)
    times = {path: path.stat() for path in taken.path.rglob("*") if path.is_file()}
    named = tampered(taken, how)
    for path, stat in times.items():
        if path.exists():
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(Refused, match=named):
        async with snapshot.restore(taken, target, name="r"):
            pass
    assert names_in(target.clones_dir) == []


@pytest.mark.parametrize("where", ["snapshots", "clones"])
async def test_a_folder_that_cannot_be_written_is_refused_in_words(
    make_target: Callable[..., Target], where: str
) -> None:
    target = make_target("logical")
    # Also root cannot make a folder below a file.
    blocked = target.state_dir if where == "snapshots" else target.clones_dir
    if where == "clones":
        taken = await snapshot.take(target, head=None)
    blocked.write_text("in the way")

    async def work() -> None:
        if where == "snapshots":
            await snapshot.take(target, head=None)
        else:
            async with snapshot.restore(taken, target, name="r"):
                pass

    with pytest.raises(Refused, match=r"(File exists|Not a directory).*Let this user write there"):
        await work()
    assert blocked.read_text() == "in the way"


async def test_what_the_block_of_a_clone_meets_is_not_called_the_snapshots(
    make_target: Callable[..., Target],
) -> None:
    target = make_target("logical")
    taken = await snapshot.take(target, head=None)
    with pytest.raises(FileNotFoundError):
        async with snapshot.restore(taken, target, name="r"):
            Path("/nowhere").read_text()
    assert names_in(target.clones_dir) == []


async def test_a_snapshot_that_is_gone_is_refused_in_words(
    make_target: Callable[..., Target],
) -> None:
    target = make_target("logical")
    taken = await snapshot.take(target, head=None)
    shutil.rmtree(taken.path)
    with pytest.raises(Refused, match=r"manifest.json is not there any more"):
        async with snapshot.restore(taken, target, name="r"):
            pass


ON_A_FULL_DISK = """
import asyncio, shutil, sys
from pathlib import Path
from airlock import snapshot
from airlock.errors import Transient
from airlock.settings import SnapshotPolicy, Target
root = Path(sys.argv[1])
usage = shutil.disk_usage("/")
shutil.disk_usage = lambda _: usage._replace(free=1 << 40)
target = Target(name="prod", root=root, state_dir=root / ".airlock", migrations_dir=root,
    database_url_env="TEST_URL", snapshot=SnapshotPolicy(provider="logical"))
try:
    asyncio.run(snapshot.take(target, head=None))
except Transient as error:
    print(error)
print(sorted(path.name for path in target.snapshots_dir.iterdir()))
"""
# What uses the disk up: the dump itself, or somebody else before our manifest.
FILLS = {
    "the dump": None,
    "the manifest": (
        "import os, sys; goal = sys.argv[-1].partition('=')[2]; os.mkdir(goal)\n"
        "with open(goal + '/toc.dat', 'wb', 0) as file:\n"
        "    try:\n"
        "        while file.write(b'x' * 4096): pass\n"
        "    except OSError: pass"
    ),
}


@pytest.mark.parametrize("what", FILLS)
async def test_a_disk_that_is_full_by_then_is_said_in_words_and_nothing_is_left(
    make_target: Callable[..., Target], stand_in: Callable[[str], None], tmp_path: Path, what: str
) -> None:
    make_target("logical", may_replicate=False)
    if (code := FILLS[what]) is not None:
        stand_in(code)
    disk = tmp_path / "disk"
    disk.mkdir()
    # A file system of our own, where the kernel lets us make one.
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    size = "24k" if code is None else "400k"
    mount = f"mount -t tmpfs -o size={size} none {disk} || exit 77"
    run = f'{mount}; exec {sys.executable} -c "$0" {disk}'
    process = await asyncio.create_subprocess_exec(
        *own, run, ON_A_FULL_DISK, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    said, complaint = await process.communicate()
    if not said and b"Traceback" not in complaint:
        pytest.skip(f"no file system of our own here: {complaint.decode()}")
    *words, left = said.decode().splitlines() or [""]
    assert "No space left on device" in " ".join(words), complaint
    assert left == "[]"


async def test_a_replaced_snapshot_is_refused(make_target: Callable[..., Target]) -> None:
    target = make_target("logical")
    taken = await snapshot.take(target, head=None)
    with pytest.raises(Refused, match="was replaced"):
        await snapshot.verify(dataclasses.replace(taken, sha256="0" * 64))


STAND_INS = {
    "floods stderr and fails": (
        "import sys; sys.stderr.write('x' * 2**20 + ' the last word'); sys.exit(3)",
        PATIENCE_S,
        r"exit status 3: x+ the last word",
    ),
    "says yes and writes nothing": (
        "import sys; sys.stderr.write('y' * 2**20)",
        PATIENCE_S,
        r"exit status 0, but toc.dat is not there",
    ),
    "hangs with a child": (
        """
import subprocess, sys, time, os
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(os.environ['HOME'] + '/pids', 'w').write(f'{os.getpid()} {child.pid}')
time.sleep(600)""",
        2,
        r"not done after 2 s and was ended",
    ),
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function: Python code to a pg_dump that runs it; all other programs are the real ones."""
    real = binaries.find()
    folder = tmp_path / "bin"
    folder.mkdir()
    for path in real.directory.iterdir():
        if path.name != "pg_dump":
            (folder / path.name).symlink_to(path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(code: str) -> None:
        script = folder / "pg_dump"
        script.write_text(f"#!{sys.executable} -IS\n{code}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PG_BIN", str(folder))

    yield make
    own.end_all(tmp_path)


@pytest.mark.parametrize("what", STAND_INS)
async def test_a_tool_that_goes_wrong_leaves_nothing(
    make_target: Callable[..., Target], stand_in: Callable[[str], None], what: str, tmp_path: Path
) -> None:
    code, deadline_s, said = STAND_INS[what]
    stand_in(code)
    target = make_target("logical")
    with pytest.raises(Transient, match=said) as failed:
        await snapshot.take(target, head=None, deadline_s=deadline_s)
    assert len(str(failed.value)) < 6000
    assert names_in(target.snapshots_dir) == []
    if (tmp_path / "pids").exists():
        await all_gone((tmp_path / "pids").read_text())


async def test_a_cancelled_snapshot_leaves_no_process_and_no_name(
    make_target: Callable[..., Target], stand_in: Callable[[str], None], tmp_path: Path
) -> None:
    stand_in(STAND_INS["hangs with a child"][0])
    target = make_target("logical")
    task = asyncio.create_task(snapshot.take(target, head=None))
    await until(lambda: len(pids_in(tmp_path)) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await all_gone((tmp_path / "pids").read_text())
    assert names_in(target.snapshots_dir) == []


def pids_in(folder: Path) -> list[str]:
    path = folder / "pids"
    return path.read_text().split() if path.exists() else []


async def all_gone(pids: str) -> None:
    def gone(pid: str) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"

    await until(lambda: all(gone(pid) for pid in pids.split()))


TAKER = """
import asyncio, sys
from pathlib import Path
from airlock import snapshot
from airlock.settings import SnapshotPolicy, Target
root = Path(sys.argv[1])
target = Target(name="prod", root=root, state_dir=root / ".airlock", migrations_dir=root,
    database_url_env="TEST_URL", snapshot=SnapshotPolicy(provider="logical"))
asyncio.run(snapshot.take(target, head=None))
"""


async def test_a_killed_run_leaves_no_final_name_and_is_swept(
    make_target: Callable[..., Target], stand_in: Callable[[str], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    target = make_target("logical", may_replicate=False)
    stand_in(STAND_INS["hangs with a child"][0])
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", TAKER, str(tmp_path))
    try:
        await until(lambda: len(pids_in(tmp_path)) == 2)
        left = names_in(target.snapshots_dir)
    finally:
        process.kill()
        await process.wait()
    tool, child = pids_in(tmp_path)
    await all_gone(tool)
    os.kill(int(child), signal.SIGKILL)
    assert [name[:5] for name in left] == [".tmp-", ".tmp-"]
    assert names_in(target.snapshots_dir) == left
    assert snapshot.list_snapshots(target) == ()
    monkeypatch.delenv("PG_BIN")
    taken = await snapshot.take(target, head=None)
    assert names_in(target.snapshots_dir) == [taken.id]


async def test_a_dead_runs_clone_is_swept_and_a_living_one_is_not(
    make_target: Callable[..., Target], content: tuple[int, str]
) -> None:
    target = make_target("logical")
    taken = await snapshot.take(target, head=None)
    (target.clones_dir / "dead" / "data").mkdir(parents=True)
    async with (
        snapshot.restore(taken, target, name="first") as first,
        snapshot.restore(taken, target, name="second"),
    ):
        assert await read(first.url) == content
        names = [name for name in names_in(target.clones_dir) if "." not in name]
        assert names == ["first", "second"]


async def test_retention_keeps_the_newest(make_target: Callable[..., Target]) -> None:
    target = make_target("logical", keep=2, keep_min=1)
    taken = [await snapshot.take(target, head=None) for _ in range(4)]
    assert await snapshot.retain(target) == (taken[1].id, taken[0].id)
    assert [each.id for each in snapshot.list_snapshots(target)] == [taken[3].id, taken[2].id]
    assert await snapshot.retain(target) == ()


async def test_retention_never_goes_below_the_verified_minimum(
    make_target: Callable[..., Target],
) -> None:
    target = make_target("logical", keep=2, keep_min=2)
    taken = [await snapshot.take(target, head=None) for _ in range(4)]
    tampered(taken[3], "flipped")
    assert await snapshot.retain(target) == (taken[0].id,)
    kept = [each.id for each in snapshot.list_snapshots(target)]
    assert kept == [taken[3].id, taken[2].id, taken[1].id]


async def test_a_snapshot_in_use_is_not_removed(
    make_target: Callable[..., Target], pg: server.Server
) -> None:
    target = make_target("logical", keep=1, keep_min=1)
    taken = [await snapshot.take(target, head=None) for _ in range(2)]
    async with snapshot.restore(taken[0], target, name="r"):
        assert await snapshot.retain(target) == ()
    assert await snapshot.retain(target) == (taken[0].id,)


async def test_a_database_called_postgres_can_be_restored(
    make_target: Callable[..., Target], pg: server.Server, database: Database
) -> None:
    url = pg.url("postgres")
    default = dataclasses.replace(database, name="postgres", url=url, superuser_url=url)
    target = make_target("logical", of=default)
    taken = await snapshot.take(target, head=None)
    async with snapshot.restore(taken, target, name="r") as clone, connect(clone.url) as conn:
        assert await conn.fetchval("SELECT current_database() || user") == "postgrespostgres"


async def test_an_extension_that_is_not_here_is_refused_before_any_work(
    make_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries.Binaries, "extensions", lambda _: frozenset({"vector"}))
    with pytest.raises(Refused, match="does not have: plpgsql"):
        await snapshot.take(make_target("logical"), head=None)
