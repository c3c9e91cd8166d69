"""What is refused before and during an apply, and what no message may show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airlock import deploy as steps
from airlock import holder, ledger, postgres, record
from airlock.approval import Approval
from airlock.errors import AirlockError, Broken, Refused, Transient
from airlock.preview import preview
from airlock.rehearsal import Rehearsal
from airlock.request import DeployRequest
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.postgres.conftest import Project

A = ("CREATE TABLE a (id int);", "DROP TABLE a;")
B = ("CREATE TABLE b (id int);", "DROP TABLE b;")


async def test_nothing_to_do_opens_no_deploy_and_creates_no_ledger(project: Project, conn):
    assert await steps.open_deploy(DeployRequest(target="prod")) is None
    assert not await ledger.exists(conn)


async def test_a_preview_changes_nothing(project: Project, conn):
    project.write(1, *A)
    found = await preview(project.target)
    assert (found.versions, found.head) == ("001", None)
    assert not await ledger.exists(conn)


async def test_a_release_without_a_service_is_refused(project: Project):
    project.write(1, *A)
    with pytest.raises(Refused, match=r"has no service.*'v2'.*\[targets\.prod\.service\]"):
        await steps.open_deploy(DeployRequest(target="prod", release="v2"))


async def test_an_unfinished_deploy_is_refused_naming_its_holder_and_the_way_out(project: Project):
    project.write(1, *A)
    await project.begin()
    with pytest.raises(Refused) as caught:
        await preview(project.target)
    assert "is not finished: it is planned" in str(caught.value)
    assert holder.name() in str(caught.value)
    assert "airlock recover prod" in str(caught.value)


async def test_a_deploy_then_drift_then_the_drift_taken_back(project: Project):
    project.write(1, *A)
    await project.deploy()
    assert (await preview(project.target)).head == "001_step"
    project.write(2, *B)
    await project.execute("ALTER TABLE a ADD COLUMN by_hand int")
    with pytest.raises(Refused) as caught:
        await steps.open_deploy(DeployRequest(target="prod"))
    assert "+ column public.a.by_hand" in str(caught.value)
    assert "Take the change back" in str(caught.value)
    await project.execute("ALTER TABLE a DROP COLUMN by_hand")
    assert (await preview(project.target)).versions == "002"
    # Rows are no drift, and neither are statistics or a rebuilt index.
    await project.execute("INSERT INTO a VALUES (1); ANALYZE a; TRUNCATE a")
    assert (await preview(project.target)).versions == "002"


async def test_without_the_drift_check_a_deploy_would_start_from_it(project: Project, monkeypatch):
    project.write(1, *A)
    lease = await project.begin()
    async with connect(project.url) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        await ledger.advance(conn, lease, "succeeded", schema_after=row.schema_before)
    await project.execute("CREATE TABLE by_hand (id int)")
    with pytest.raises(Refused, match=r"\+ table public\.by_hand"):
        await preview(project.target)

    async def nothing(_: object) -> None: ...

    monkeypatch.setattr(ledger, "last_seen", nothing)
    assert (await preview(project.target)).versions == "001"


async def test_a_failed_deploy_leaves_the_schema_from_before_as_the_one_to_be(project: Project):
    project.write(1, *A)
    await steps.fail(await project.begin(), "x")
    assert (await preview(project.target)).versions == "001"


async def test_up_to_leaves_the_rest_for_later(project: Project):
    project.write(1, *A)
    project.write(2, *B)
    assert (await preview(project.target, up_to=1)).versions == "001"


# ---------------------------------------------------------------- the apply's own guards


NOT_NEEDED: dict[str, object] = {}


async def rehearsed(
    project: Project, *, answer: dict[str, object] | None = NOT_NEEDED, **changed: object
):
    """A deploy whose rehearsal is in the ledger, with some of its facts changed.

    answer: what is otherwise about the approval; None: nobody was asked.
    """
    project.write(1, *A)
    lease = await project.begin()
    async with connect(project.url) as conn:
        row = await ledger.deploy(conn, lease.deploy)
        facts = Rehearsal(
            snapshot="s",
            provider="logical",
            server_version="15",
            rehearsed_at=datetime.now(UTC),
            seconds=1,
            restore_seconds=1,
            schema_before=row.planned.schema_before,
            schema_after="",
            checksums=row.planned.checksums,
            migrations=(),
            verdict="exact",
            losses=(),
            not_compared=(),
            rows_compared=0,
        )
        found = replace(facts, **changed)  # type: ignore[arg-type]
        approval = record.dump(decided(row, **answer)) if answer is not None else None
        told = record.dump(found)
        await ledger.advance(conn, lease, "rehearsed", rehearsal=told, approval=approval)
    return lease


def decided(row: ledger.Deploy, **changed: object) -> Approval:
    facts = Approval(
        required_because="policy none",
        asked_at=datetime.now(UTC),
        schema_before=row.planned.schema_before,
        checksums=row.planned.checksums,
        decision="not needed",
        decided_at=datetime.now(UTC),
    )
    return replace(facts, **changed)  # type: ignore[arg-type]


async def state(project: Project) -> tuple[str, bool]:
    async with connect(project.url) as conn:
        row = (await ledger.recent(conn))[0]
    return row.state, "table public.a" in (await project.catalogue()).objects


async def test_an_apply_without_a_rehearsal_is_refused(project: Project):
    project.write(1, *A)
    lease = await project.begin()
    with pytest.raises(Refused, match="was not rehearsed"):
        await steps.apply_plan(lease)
    assert await state(project) == ("planned", False)


@pytest.mark.parametrize("changed", [{"checksums": ("x",)}, {"schema_before": "x"}])
async def test_an_apply_of_another_plan_than_the_rehearsed_one_is_refused(
    project: Project, changed
):
    lease = await rehearsed(project, **changed)
    with pytest.raises(Refused, match="rehearsed with other files or on another schema"):
        await steps.apply_plan(lease)
    assert await state(project) == ("rehearsed", False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "nobody was asked about this rehearsal"),
        ({"checksums": ("x",)}, "nobody was asked about this rehearsal"),
        ({"schema_before": "x", "decision": "approved"}, "nobody was asked about this rehearsal"),
        ({"decision": None}, "waits since"),
        ({"decision": "rejected", "name": "Ada"}, "Rejected by Ada"),
        ({"decision": "expired"}, "Nobody decided within"),
    ],
)
async def test_an_apply_that_nobody_let_pass_is_refused(project: Project, answer, said):
    lease = await rehearsed(project, answer=answer)
    with pytest.raises(Refused, match=f"may not touch prod: {said}"):
        await steps.apply_plan(lease)
    assert await state(project) == ("rehearsed", False)


async def test_an_apply_on_a_schema_that_moved_since_the_rehearsal_is_refused(project: Project):
    lease = await rehearsed(project)
    await project.execute("CREATE TABLE stray (id int)")
    with pytest.raises(Refused, match=r"changed since the rehearsal: .* Nothing was applied now"):
        await steps.apply_plan(lease)
    assert await state(project) == ("rehearsed", False)


async def test_without_that_check_it_would_be_applied(project: Project, monkeypatch):
    async def unchecked(*_: object) -> None: ...

    lease = await rehearsed(project)
    await project.execute("CREATE TABLE stray (id int)")
    monkeypatch.setattr(steps, "_check_schema", unchecked)
    await steps.apply_plan(lease)
    assert await state(project) == ("applied", True)


async def test_an_apply_that_was_done_is_not_done_again(project: Project):
    project.write(1, *A)
    lease = await steps.open_deploy(DeployRequest(target="prod"))
    assert lease is not None
    await steps.take_snapshot(lease)
    await steps.rehearse(lease)
    await steps.ask(lease)
    first = await steps.apply_plan(lease)
    rows = await project.rows(lease)
    assert await steps.apply_plan(lease) == first
    assert await project.rows(lease) == rows
    assert (await steps.verify_schema(lease)).is_empty


async def test_a_schema_that_is_not_the_rehearsed_one_is_broken_with_the_difference(
    project: Project,
):
    project.write(1, *A)
    lease = await project.begin()
    async with connect(project.url) as conn:
        expected = await ledger.save_catalogue(conn, await project.catalogue())
        await ledger.advance(conn, lease, "applied", schema_expected=expected)
    await project.execute("CREATE TABLE stray (id int)")
    with pytest.raises(Broken, match=r"differs from the rehearsal:(?s:.*)\+ table public\.stray"):
        await steps.verify_schema(lease)


# ---------------------------------------------------------------- secrets and errors

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cr3t@host:5432/db?sslmode=require", "postgresql://u@host:5432/db"),
        ("postgres://u:s3cr3t@host/db", "postgres://u@host/db"),
        ("postgresql://u:s3cr3t@a:1,b:2/db", "postgresql://u@a:1,b:2/db"),
        ("postgresql://u:s3cr3t@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("postgresql://u:s3cr3t%40x@host/db", "postgresql://u@host/db"),
        ("postgresql://u:s3cr3t@x@host/db", "postgresql://u@host/db"),
        ("postgresql:///db?host=/run&user=u&password=s3cr3t", "postgresql:///db"),
    ],
)
def test_an_address_is_shown_without_its_password(url, shown):
    assert postgres.without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "s3cr3t",
        "postgresql://u:s3cr/3t@host/db",
        "postgresql://u:s3cr3t#x@host/db",
        "postgresql://u:s3cr3t?x@host/db",
        "postgresql://u:12/s3cr3t@host/db",
        "postgresql://u:[s3cr3t@host/db",
        "mysql://u:s3cr3t@host/db",
        "postgresql://u:s3cr3t@host:port/db",
        "postgresql://u:s3cr3t@host:99999/db",
        "host=x password=s3cr3t",
    ],
)
async def test_an_address_that_is_none_is_refused_and_shows_nothing(url):
    with pytest.raises(Refused, match="%40 for @") as caught:
        async with connect(url):
            pytest.fail("connected")
    assert "s3cr" not in str(caught.value)


async def test_the_password_is_in_no_error_of_a_failed_connection(project: Project):
    tcp = project.database.tcp_url.replace("owner:", "owner:s3cr3t")
    for url, kind in [
        (tcp, Refused),
        ("postgresql://u:s3cr3t@127.0.0.1:1/db", Transient),
        ("postgresql://u:s3cr3t@localhost/db?host=/nowhere", Transient),
        ("postgresql://u:s3cr3t@nowhere.invalid/db", Transient),
        (tcp.replace(project.database.name, "nowhere"), Refused),
        ("postgresql://u:s3cr3t@127.0.0.1:1/db?sslmode=nonsense", Refused),
    ]:
        with pytest.raises(AirlockError) as caught:
            async with connect(url, timeout_s=PATIENCE_S):
                pytest.fail("connected")
        assert type(caught.value) is kind, url
        assert SECRET not in repr(caught.value)
        assert SECRET not in repr(caught.value.__cause__)


async def test_the_password_is_in_no_row_of_the_ledger(project: Project, monkeypatch):
    monkeypatch.setenv("PROD_URL", project.database.tcp_url)
    project.write(1, *A)
    await project.deploy()
    ask = "SELECT relname FROM pg_class WHERE relnamespace = 'airlock'::regnamespace"
    tables = await project.fetch(ask + " AND relkind = 'r' ORDER BY 1")
    assert len(tables) > 5
    for (table,) in tables:
        text = str(await project.fetch(f"SELECT t::text FROM airlock.{table} AS t"))
        assert "owner's pass" not in text
        assert "owner%27s" not in text


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1 / 0", Broken),
        ("SELECT * FROM pg_catalog.pg_authid", Refused),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Transient),
        ("SET lock_timeout = 1; SET statement_timeout = 20; SELECT pg_sleep(1)", Broken),
    ],
)
async def test_errors_of_the_server_are_named_by_their_remedy(project: Project, sql, kind):
    with pytest.raises(AirlockError) as caught:
        async with ledger.connection(project.target) as conn:
            await conn.execute(sql)
    assert type(caught.value) is kind


async def test_an_errors_detail_and_hint_are_said_once(project: Project):
    await project.execute("CREATE TABLE a (id int UNIQUE)")
    with pytest.raises(Broken) as caught:
        async with ledger.connection(project.target) as conn:
            await conn.execute("INSERT INTO public.a VALUES (1), (1)")
    assert str(caught.value).count("Key (id)=(1)") == 1
