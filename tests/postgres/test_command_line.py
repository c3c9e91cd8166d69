"""The real command line on a real database: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from airlock import deploy as steps
from tests.postgres.conftest import Project

CHECKOUT = Path(__file__).resolve().parents[2]


async def airlock(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``python -m airlock``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "airlock", *arguments),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_status_says_where_plain_text_is_allowed(project: Project):
    assert "plaintext" not in (await airlock("status", "prod"))[1]
    file = project.root / "airlock.toml"
    first, rest = file.read_text(encoding="utf-8").split("\n[targets.prod.budget]")
    file.write_text(f"{first}\nallow_plaintext = true\n[targets.prod.budget]{rest}")
    assert "allow_plaintext: other machines" in (await airlock("status", "prod"))[1]


async def test_the_reading_commands_before_and_after_a_deploy(project: Project, tmp_path: Path):
    assert await airlock("plan", "prod") == (0, "prod stands at nothing.\nNothing to do.\n", "")
    assert (await airlock("history", "prod"))[1].startswith("Nothing was deployed to prod yet")
    status, _, err = await airlock("report", "prod")
    assert (status, "Nothing was deployed" in err) == (1, True)

    project.write(
        1, "CREATE TABLE a (id int);\nCREATE INDEX CONCURRENTLY i ON a (id);", "DROP TABLE a;"
    )
    status, out, _ = await airlock("plan", "prod")
    assert status == 0
    assert "001_step  a test" in out
    assert "6  CREATE TABLE a (id int)\n" in out
    assert "7  CREATE INDEX CONCURRENTLY i ON a (id)  (outside a transaction)" in out
    assert "Lint" not in out
    status, out, _ = await airlock("plan", "prod", "--json")
    (pending,) = json.loads(out)["pending"]
    assert pending["file"] == "001_step.sql"
    assert [each["in_transaction"] for each in pending["statements"]] == [True, False]

    file = tmp_path / "next.sql"
    file.write_text("ALTER TABLE a ALTER id TYPE bigint; ALTER TABLE b ADD c int")

    lease = await project.deploy(reason="why", requester="somebody")
    assert await airlock("plan", "prod") == (0, "prod stands at 001_step.\nNothing to do.\n", "")
    status, out, _ = await airlock("deploy", "prod")
    assert (status, "Nothing to do" in out) == (0, True)
    status, out, _ = await airlock("status")
    assert (status, "stands at 001_step, 0 pending; last: deploy 1, DEPLOYED" in out) == (0, True)
    status, out, _ = await airlock("status", "prod", "--json")
    (found,) = json.loads(out)
    assert (found["head"], found["pending"], found["alerts_waiting"]) == ("001_step", [], 0)
    status, out, err = await airlock("effects", str(file), "--database", "prod", "--json")
    retyped, missing = json.loads(out)
    assert (status, err, missing["effects"]) == (0, "", [])
    assert {each["relation"]: each["rewrites"] for each in retyped["effects"]} == {
        "public.a": True,
        "public.i": True,
    }
    status, out, _ = await airlock("history", "prod", "--json")
    (row,) = json.loads(out)["deploys"]
    assert (row["id"], row["state"], row["reason"]) == (lease.deploy, "succeeded", "why")
    assert "somebody" in (await airlock("history", "prod"))[1]
    status, out, _ = await airlock("report", "prod")
    assert status == 0
    assert out.startswith("# DEPLOYED – prod stands at 001")
    assert "- ☑ Tested on dev database" in out
    assert (await airlock("report", "prod", "99"))[0] == 1


async def test_an_edited_migration_is_refused_by_name_with_status_1(project: Project):
    path = project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    await project.deploy()
    path.write_text(path.read_text() + "-- an afterthought\n")
    status, out, err = await airlock("plan", "prod")
    assert (status, out) == (1, "")
    assert err.startswith("airlock: 001_step.sql changed after it was applied on ")


async def test_recover_says_at_once_that_nobody_is_needed_or_who_is(project: Project):
    nothing = "prod: nothing to recover: nothing was deployed yet\n"
    assert await airlock("recover", "prod") == (0, nothing, "")
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    lease = await project.begin()
    status, out, _ = await airlock("recover")
    assert (status, out.split(" – ")[0]) == (0, "prod: nothing to recover: IN PROGRESS")
    await steps.strand(lease, "it does not go back")
    status, out, _ = await airlock("recover", "prod")
    assert status == 0
    assert "ROLLBACK FAILED" in out
    assert "airlock rollback prod" in out


async def test_an_open_deploy_is_shown_with_the_next_command(project: Project):
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    lease = await project.begin()
    status, out, _ = await airlock("status", "prod")
    assert status == 0
    assert "IN PROGRESS" in out
    assert "held by" in out
    await steps.strand(lease, "it does not go back")
    status, out, _ = await airlock("status", "prod")
    assert "ROLLBACK FAILED" in out
    assert "airlock rollback prod" in out
    status, _, err = await airlock("plan", "prod")
    assert (status, "is not finished: it is stranded" in err) == (1, True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://owner:s3cr3t@127.0.0.1:1/nowhere", "connecting to postgresql://owner@127"),
        ("postgresql://owner:s3cr/3t@127.0.0.1/nowhere", "%2F for /"),
    ],
)
async def test_a_database_out_of_reach_is_one_message_without_the_password(
    project: Project, monkeypatch, url, said
):
    del project
    monkeypatch.setenv("PROD_URL", url)
    status, out, err = await airlock("plan", "prod")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert said in err
    assert "s3cr" not in err


async def test_a_refusal_of_the_server_is_one_message(project: Project):
    project.write(1, "CREATE TABLE a (id int);", "DROP TABLE a;")
    await project.begin()
    await project.execute("REVOKE ALL ON ALL TABLES IN SCHEMA airlock FROM owner")
    status, _, err = await airlock("plan", "prod")
    assert status == 1
    assert err.startswith("airlock: ")
    assert "permission denied" in err
    assert "Traceback" not in err


async def test_reading_commands_import_no_prefect(project: Project):
    del project
    code = (
        "import sys; sys.argv = ['airlock', 'plan', 'prod']\n"
        "from airlock.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'prefect', 'httpx', 'postgast'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )
    assert await process.wait() == 0


@pytest.mark.parametrize("section", ["[targets.prod]\n", "[targets.prod.service]\n"])
async def test_status_names_an_env_file_that_others_may_read_before_a_deploy_refuses_it(
    project: Project, section: str
):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "prod.env")
        path.write_text("TOKEN=s3cr3t\n")
        path.chmod(0o644)
        config = project.root / "airlock.toml"
        text, line = config.read_text(), f'{section}env_file = "{path}"\n'
        config.write_text(text.replace(section, line) if section in text else text + line)
        status, out, _ = await airlock("status", "prod")
        assert (status, "stands at nothing" in out) == (0, True)
        assert "can be read by another user. " in out
        assert f"chmod 600 {path}\n" in out
        status, _, err = await airlock("deploy", "prod")
        assert (status, f"chmod 600 {path}" in err) == (1, True)
        assert "s3cr3t" not in out + err
        path.chmod(0o600)
        assert "chmod" not in (await airlock("status", "prod"))[1]
