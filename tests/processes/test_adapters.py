"""The adapters in which something else starts the service, with stand-ins for that something."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from airlock import health, service
from airlock.errors import Broken, Refused
from airlock.service import Release

from .conftest import Stage

# Keeps one process per unit, as systemd would; its state is a pid file.
SYSTEMCTL = """#!/bin/sh
cd "{folder}"
alive() {{ [ -f pid ] && read -r _ _ state _ < /proc/"$(cat pid)"/stat && [ "$state" != Z ]; }}
exec 2>/dev/null
case "$1" in
  show) if alive; then echo "MainPID=$(cat pid)"; echo ActiveState=active
        else echo MainPID=0; echo ActiveState=failed; fi
        echo SubState=x; echo Result=y ;;
  restart) if alive; then kill "$(cat pid)"; while alive; do sleep 0.02; done; fi
        [ -f refuse ] && {{ echo "Job for unit failed"; exit 1; }}
        cd "$(readlink .airlock/test/service/current)"
        PORT={port} setsid python3 start_server.py >/dev/null 2>&1 & echo $! > "{folder}/pid" ;;
esac
"""
COMPOSE = """#!/bin/sh
alive() {{ read -r _ _ state _ < /proc/"$(cat "{folder}/pid")"/stat && [ "$state" != Z ]; }}
exec 2>/dev/null
cd "$RELEASE_DIRECTORY"
case "$1" in
  up) setsid python3 start_server.py >/dev/null 2>&1 & echo $! > "{folder}/pid" ;;
  down) kill "$(cat "{folder}/pid")"; while alive; do sleep 0.02; done ;;
  hang) sleep 30 ;;
esac
"""


def stand_in(stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    folder = stage.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(text.format(folder=stage.folder, port=stage.port))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


async def test_systemd_restarts_the_unit_and_the_new_main_process_is_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(stage, monkeypatch, "systemctl", SYSTEMCTL)
    stage.options |= {"adapter": "systemd", "unit": "app.service"}
    assert await service.find(stage.target) is None
    first = await stage.restart("one")
    second = await stage.restart("two", old=first.new)
    assert (second.method, second.note) == ("systemd", "systemctl restart app.service")
    assert second.old is not None
    assert second.old.identity == first.new.identity != second.new.identity
    assert second.gap_s > 0.02
    assert (await health.check(stage.target, second.new)).is_healthy
    (stage.folder / "refuse").touch()
    elsewhere = Release(ref="v2", commit=None, directory=stage.folder)
    with pytest.raises(Broken, match="Job for unit failed"):
        await service.restart(stage.target, elsewhere, old=None, token="three")
    current = stage.target.service_dir / "current"
    assert current.readlink() == stage.folder / "app"


async def test_systemd_without_a_unit_is_refused(stage: Stage) -> None:
    stage.options["adapter"] = "systemd"
    with pytest.raises(Refused, match="unit ="):
        await stage.restart("one")


async def test_commands_start_and_stop_and_their_instance_is_known_by_token(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(stage, monkeypatch, "compose", COMPOSE)
    stage.options |= {
        "adapter": "command",
        "start": ("compose", "up"),
        "stop": ("compose", "down"),
    }
    first = await stage.restart("one")
    second = await stage.restart("two", old=first.new)
    assert second.note == "compose down; compose up"
    assert (await stage.who())["instance"] == "two"
    assert second.new.is_alive
    in_container = replace(second.new, pid=0)
    found = await service.find(stage.target, in_container)
    assert found is not None
    assert found.release == second.new.release
    assert (await health.check(stage.target, second.new)).is_healthy


async def test_a_failing_command_is_named_with_what_it_wrote(stage: Stage) -> None:
    stage.options |= {"adapter": "command", "start": ("sh", "-c", "echo no such image; exit 4")}
    with pytest.raises(Broken, match=r"(?s)failed: status 4.*no such image"):
        await stage.restart("one")


async def test_a_service_that_never_answers_is_broken_for_every_adapter(stage: Stage) -> None:
    stage.options |= {"adapter": "command", "start": ("true",), "ready_s": 0.4}
    with pytest.raises(Broken, match=r"not ready within 0\.4 s.*connection refused"):
        await stage.restart("one")
