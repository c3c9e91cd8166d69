"""No secret that Airlock is given stands where a person, a backup or `ps` could read it.

What a worker and its runs leave is searched in tests/pipeline/test_serve.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.logging.handlers import APILogHandler

from airlock import server
from airlock.postgres import quote_ident, quote_literal
from flows.runtime import Runtime
from tests.conftest import OWNER, OWNER_PASSWORD, SUPERUSER_PASSWORD
from tests.patience import until
from tests.people import connect
from tests.stage import Stage

ALERTS = """\
pagerduty_key_env = "PROD_PAGERDUTY_KEY"
pagerduty_url = "{hook}"
webhook_url_env = "PROD_WEBHOOK_URL"
[targets.prod.alerts.email]
host = "127.0.0.1"
port = {closed}
sender = "airlock@localhost"
to = ["oncall@localhost"]
tls = "none"
user = "airlock"
password_env = "PROD_SMTP_PASSWORD"
[targets.prod.alerts.github]
repository = "acme/tracker"
token_env = "PROD_GITHUB_TOKEN"
api_url = "http://127.0.0.1:{closed}"
[targets.prod.metrics]
push_url_env = "PROD_PUSH_URL"
"""
ADD_COLUMN = ("ALTER TABLE deals ADD COLUMN score integer;", "ALTER TABLE deals DROP COLUMN score;")
DEV = 'dev_url_env = "DEV_DATABASE_URL"\n'

# Leaked on purpose into each place that is searched: a search that cannot find it proves nothing.
DECOY = "decoy"
NAMES = (
    *("owner", "superuser", "wrong", "slack", "pagerduty", "webhook", "smtp", "github", "push"),
    DECOY,
)


def new_words(*names: str) -> dict[str, str]:
    return {name: f"planted{name}{secrets.token_hex(6)}" for name in names}


@pytest.fixture
async def planted(
    stage: Stage, pg: server.Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Mapping[str, str]]:
    """A word for each secret that the settings name; it occurs nowhere else, encoded or not."""
    words = new_words(*NAMES)
    database, closed = stage.superuser_url.partition("@/")[2].partition("?")[0], port
    nobody = f"http://127.0.0.1:{closed}"  # what is said about a failed request is a risk, too
    for variable, value in {
        "PROD_DATABASE_URL": pg.tcp_url(database, OWNER, words["owner"]),
        "DATABASE_URL": pg.tcp_url(database, OWNER, words["owner"]),
        "PROD_REPLICATION_URL": pg.tcp_url(database, "postgres", words["superuser"]),
        "DEV_DATABASE_URL": pg.tcp_url("postgres", "postgres", words["superuser"]),
        "PROD_SLACK_URL": f"{stage.webhook.url}/{words['slack']}",
        "PROD_PAGERDUTY_KEY": words["pagerduty"],
        "PROD_WEBHOOK_URL": f"{nobody}/{words['webhook']}",
        "PROD_SMTP_PASSWORD": words["smtp"],
        "PROD_GITHUB_TOKEN": words["github"],
        "PROD_PUSH_URL": f"{nobody}/{words['push']}",
    }.items():
        monkeypatch.setenv(variable, value)
    slack = 'slack_url_env = "PROD_SLACK_URL"\n'
    stage.change(slack, slack + ALERTS.format(hook=stage.webhook.url, closed=closed))
    await _set_passwords(pg, {OWNER: words["owner"], "postgres": words["superuser"]})
    yield words
    await _set_passwords(pg, {OWNER: OWNER_PASSWORD, "postgres": SUPERUSER_PASSWORD})


async def _set_passwords(pg: server.Server, passwords: Mapping[str, str]) -> None:
    async with connect(pg.url()) as superuser:
        for role, password in passwords.items():
            await superuser.execute(
                f"ALTER ROLE {quote_ident(role)} PASSWORD {quote_literal(password)}"
            )


@contextmanager
def watching_command_lines() -> Iterator[set[str]]:
    """The command lines of every process of the machine that starts meanwhile, as `ps` has them."""
    seen: set[str] = set()
    earlier = set(psutil.pids())
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for pid in set(psutil.pids()) - earlier:
                try:
                    seen.add(" ".join(psutil.Process(pid).cmdline()))
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


async def leak(secret: str, stage: Stage, seen: set[str]) -> None:
    """Put one secret into each place that is searched; no code of ours may do any of this."""

    @flow
    async def careless() -> None:
        logging.getLogger("airlock.careless").warning("Cannot reach postgresql://u:%s@db", secret)
        await acreate_markdown_artifact(key="careless", markdown=f"`{secret}`")

    await careless()
    (stage.target.state_dir / "careless.log").write_text(secret, encoding="utf-8")
    stage.webhook.bodies.append({"text": f"ROLLED BACK: {secret}"})
    async with connect(stage.superuser_url) as conn:
        await conn.execute("UPDATE airlock.deploy SET failure = concat(failure, $1::text)", secret)
        await conn.execute(f"DO $$ BEGIN RAISE LOG 'tried {secret}'; END $$")
    command = [sys.executable, "-c", "input()", secret]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        await until(lambda: " ".join(command) in seen)
    finally:
        await process.communicate(b"\n")
    sys.stderr.write(secret)


async def rows_of_the_ledger(stage: Stage) -> str:
    """Every row of every table of Airlock's, as text."""
    async with connect(stage.superuser_url) as conn:
        tables = await conn.fetch(
            "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c "
            "WHERE c.relnamespace = 'airlock'::regnamespace AND c.relkind = 'r'"
        )
        rows = [await conn.fetch(f"SELECT t::text FROM {table} AS t") for (table,) in tables]
    return "\n".join(row for found in rows for (row,) in found)


async def artifacts_of(runtime: Runtime) -> str:
    async with runtime.client() as http:
        return (await http.post("/artifacts/filter", json={})).raise_for_status().text


def text_of(*paths: Path) -> str:
    """What the files hold, byte for byte."""
    return "".join(path.read_bytes().decode("latin-1") for path in paths if path.is_file())


async def found_in_places(
    words: Mapping[str, str],
    stage: Stage,
    prefect_server: Runtime,
    pg: server.Server,
    seen: set[str],
    terminal: Iterable[str],
) -> dict[str, set[str]]:
    """Which of the words stand where: in every place that outlives a run, or can be watched."""
    await APILogHandler.aflush()
    state_dir, prefect = stage.target.state_dir, prefect_server.state_dir
    places = {
        "Prefect's database": text_of(*prefect.glob("prefect.db*")),
        "files": text_of(*state_dir.rglob("*"), *prefect.rglob("*.log")),
        "the server's log": text_of(server.log_file(pg.data_dir)),
        "the ledger": await rows_of_the_ledger(stage),
        "artifacts": await artifacts_of(prefect_server),
        # PagerDuty is told its key in the body.
        "alerts": json.dumps([{**body, "routing_key": ""} for body in stage.webhook.bodies]),
        "command lines": "\n".join(seen),
        "the terminal": "".join(terminal),
    }
    return {
        place: {name for name, word in words.items() if word in text}
        for place, text in places.items()
    }


async def test_no_secret_is_left_where_it_could_be_read(
    stage: Stage,
    run_deploy,
    planted: Mapping[str, str],
    prefect_server: Runtime,
    pg: server.Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stage.try_releases()
    with watching_command_lines() as seen:
        states = [await run_deploy(release="v2", reason="halts")]
        stage.migration(11, "score", *ADD_COLUMN)
        stage.change("try_releases", f"{DEV}try_releases")
        states.append(await run_deploy(release="unhealthy"))
        wrong = stage.target.database_url.replace(planted["owner"], planted["wrong"])
        with monkeypatch.context() as patch:
            patch.setenv("PROD_DATABASE_URL", wrong)
            states.append(await run_deploy())
        await leak(planted[DECOY], stage, seen)
    assert [state.name for state in states] == ["Deployed", "RolledBack", "Refused"]
    # Other programs, other command lines: a logical snapshot, restored on the dev server.
    assert json.loads((await stage.last()).snapshot)["provider"] == "logical"

    found = await found_in_places(planted, stage, prefect_server, pg, seen, capfd.readouterr())
    assert found == {place: {DECOY} for place in found}
