"""Airlock called as others call it: with any umask, in a checkout that is not its user's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airlock import permissions, settings

AIRLOCK = (sys.executable, "-P", "-m", "airlock")


def test_a_new_migration_has_the_umask_of_whoever_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / settings.CONFIG_NAME).write_text("[targets]\n", encoding="utf-8")
    monkeypatch.delenv(settings.CONFIG_VARIABLE, raising=False)
    monkeypatch.delenv(permissions.VARIABLE, raising=False)
    subprocess.run([*AIRLOCK, "new", "deal scores"], cwd=tmp_path, umask=0o002, check=True)
    (made,) = (tmp_path / "migrations").iterdir()
    assert made.stat().st_mode & 0o777 == 0o664
