"""Text of others in what people read: it may not move the cursor, hide, or turn around."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from datetime import UTC, datetime

import pytest

from airlock import deploy as steps
from airlock import html, report
from airlock.alert import Alert, compose
from airlock.errors import Broken
from airlock.service import log
from tests.postgres.conftest import Project, project

__all__ = ["project"]

# Clear the screen; turn the line around; the same as one byte; go back; a title for the window.
EVIL_SQL = "\x1b[2J\u202eerised\u2066\x9b31m\x08\x07\u2028\x1b]0;owned\x07"
# In a file, it ends a line.
EVIL = EVIL_SQL + "\r"
# What a terminal or a browser obeys instead of showing it.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


async def airlock(*arguments: str) -> str:
    """All that a command of the command line writes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "airlock", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


@pytest.mark.attack(
    by="the author of a branch, or whoever may start a deploy",
    tries="escape sequences and directions of writing in SQL, names, reasons",
)
async def test_what_others_wrote_is_shown_and_never_obeyed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_REQUESTER", EVIL)
    path = project.write(1, f"CREATE TABLE a (id int); -- {EVIL_SQL}", "DROP TABLE a;")
    path.write_text(path.read_text(encoding="utf-8").replace("a test", EVIL_SQL), encoding="utf-8")
    said = {command: await airlock(command, "prod") for command in ("plan",)}
    said["lint"] = await airlock("lint")
    lease = await project.deploy(reason=EVIL, requester=EVIL)
    project.write(2, f'ALTER TABLE "{EVIL_SQL}" ADD c int;', "SELECT 1;")
    for command in ("status", "history", "report", "plan"):
        said[command] = await airlock(command, "prod")
    for command in ("history", "plan"):
        said[f"{command} --json"] = await airlock(command, "prod", "--json")
    said["lint again"] = await airlock("lint", "--target", "prod")
    said["effects"] = await airlock("effects", str(project.root / "migrations/002_step.sql"))
    found = await steps.read_report(project.target, lease.deploy)
    said["report as markdown"], said["report as a page"] = report.markdown(found), html.page(found)
    obeyed = {name: found for name, text in said.items() if (found := OBEYED.findall(text))}
    assert obeyed == {}
    assert json.loads(said["history --json"])["deploys"][0]["reason"] == EVIL
    assert "\\u001b[2J" in said["history"]
    assert "\\u202eerised" in said["report"]


@pytest.mark.attack(by="the service", tries="escape sequences in what it logs", sample=True)
def test_what_the_service_wrote_is_shown_and_never_obeyed(project: Project) -> None:
    assert OBEYED.findall(log.mask(project.target, EVIL)) == []


@pytest.mark.attack(by="whoever's words an error quotes", tries="escape sequences", sample=True)
def test_an_error_shows_what_it_quotes() -> None:
    error = Broken(f"It said {EVIL}")
    assert OBEYED.findall(f"{error} {error!r}") == []


@pytest.mark.attack(by="whoever may start a deploy", tries="escape sequences in an alert")
def test_an_alert_shows_what_others_wrote(project: Project) -> None:
    alert = Alert(
        headline="FAILED",
        target="prod",
        deploy=1,
        state="failed",
        error=EVIL,
        requester=EVIL,
        reason=EVIL,
        approval=EVIL,
        evidence=(EVIL,),
        at=datetime.now(UTC),
    )
    shown = dataclasses.asdict(compose.scrubbed(project.target, alert)).values()
    assert OBEYED.findall("".join(map(str, shown))) == []
