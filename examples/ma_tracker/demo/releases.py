"""The service's git repository with its releases, one tag for each.

v1 serves when the curtain rises, v2 comes with migration 010, v3 with 011: it boots, and soon after
its first answer it is unhealthy. v4 is v3 without that fault.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from airlock.errors import Refused
from airlock.release import git_environ

SOURCE = Path(__file__).resolve().parents[1] / "python-service"
TAGS = ("v1", "v2", "v3", "v4")
FAULTY = "v3"

HEALTH = "async def health(request: Request) -> JSONResponse:\n"
FAULT = """\
    if feed.seconds_since_first_asked() > 1:
        reason = "no quotes: the feed's licence has expired"
        return JSONResponse({"status": "unhealthy", "reason": reason}, status_code=503)
"""
FEED = '''\
"""The feed of quotes that release v3 needs and does not get."""

import os
import time

_first_asked_at = 0.0


def seconds_since_first_asked() -> float:
    global _first_asked_at
    if os.environ.get("AIRLOCK_REHEARSAL"):
        return 0.0  # on a clone nobody asks the feed
    _first_asked_at = _first_asked_at or time.monotonic()
    return time.monotonic() - _first_asked_at
'''

# Nothing of the person's own git settings: no hooks, no signing, no template, no line-end changes.
_SETTINGS = {
    "user.name": "M&A Tracker team",
    "user.email": "tracker@localhost",
    "core.hooksPath": "/dev/null",
    "core.autocrlf": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
}


async def make_repository(folder: Path) -> None:
    """Commit and tag each release. Raises Refused without git."""
    if shutil.which("git") is None:
        raise Refused("The demo deploys git tags of its service, and there is no git. Install git.")
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    good = (folder / "routes.py").read_text(encoding="utf-8")
    await _git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
    for tag in TAGS:
        _write(folder, tag, good)
        await _git(folder, "add", "--all")
        await _git(folder, "commit", "--quiet", "--message", f"Release {tag}")
        await _git(folder, "tag", tag)


def _write(folder: Path, tag: str, good: str) -> None:
    (folder / "RELEASE").write_text(f"{tag}\n", encoding="utf-8")
    feed, routes = folder / "feed.py", folder / "routes.py"
    if tag != FAULTY:
        feed.unlink(missing_ok=True)
        routes.write_text(good, encoding="utf-8")
        return
    if HEALTH not in good:
        raise Refused(f"{SOURCE.name}/routes.py has another health(); mend HEALTH in {__name__}.")
    feed.write_text(FEED, encoding="utf-8")
    faulty = good.replace(HEALTH, HEALTH + FAULT).replace("\nimport ", "\nimport feed\nimport ", 1)
    routes.write_text(faulty, encoding="utf-8")


def git_command(folder: Path, *arguments: str) -> list[str]:
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return ["git", "-C", str(folder), *settings, *arguments]


async def _git(folder: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *git_command(folder, *arguments),
        env=git_environ(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise Refused(f"git {arguments[0]} failed in {folder}: {said.decode().strip()}")
