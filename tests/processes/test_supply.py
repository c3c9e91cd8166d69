"""What is installed where Airlock runs: pinned by hashes, without what only development needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "docs" / "install"
DEV, RUN, REDIS = ROOT / "requirements.lock", ROOT / "requirements-run.lock", INSTALL / "redis.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(lock: Path) -> dict[str, str]:
    """Each requirement of a lock, its version, condition and hashes, by name."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(re.split("[=<>;@ ]", line)[0]): line for line in lines}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def test_what_runs_is_what_was_tested() -> None:
    run, tested = pins(RUN), pins(DEV)
    assert {name: line for name, line in run.items() if not same(line, tested.get(name))} == {}
    assert names(PROJECT["project"]["dependencies"]) <= run.keys()


def same(one: str, other: str | None) -> bool:
    """The same version by the same hashes; a condition can be wider for development."""
    return other is not None and _exact(one) == _exact(other)


def _exact(line: str) -> tuple[str, frozenset[str]]:
    return line.split(maxsplit=1)[0], frozenset(re.findall(r"--hash=\S+", line))


def test_nothing_that_only_development_needs_is_installed_where_it_runs() -> None:
    assert pins(RUN).keys() & names(PROJECT["dependency-groups"]["dev"]) == set()


@pytest.mark.parametrize("lock", [DEV, RUN, REDIS], ids=lambda path: path.name)
def test_a_lock_has_a_version_and_hashes_for_all_and_no_address(lock: Path) -> None:
    for line in pins(lock).values():
        assert re.fullmatch(
            r"[\w.\[\],-]+==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line
        )
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^--|^-\w", text, re.MULTILINE)


def test_the_image_is_built_of_pinned_files_on_a_base_that_can_be_pinned() -> None:
    text = (INSTALL / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    assert "ARG BASE=" in text.partition("FROM ")[0]
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE}"]
    assert "@sha256:" in text
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert installs
    assert all("--require-hashes" in each for each in installs)
    locks = {name for each in installs for name in re.findall(r"--requirement (\S+)", each)}
    assert locks == {RUN.name, REDIS.name}


def test_it_runs_with_nothing_but_what_the_run_time_lock_names(tmp_path: Path) -> None:
    for name in pins(RUN):
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system
        link(found, tmp_path)
    everything = (
        "import importlib, pkgutil\n"
        "for name in ('airlock', 'flows', 'tasks'):\n"
        "    package = importlib.import_module(name)\n"
        "    for each in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        importlib.import_module(each.name)\n"
        "import prefect.server.api.server\n"
    )
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "PREFECT_HOME": str(tmp_path / "home"),
    }
    for command in (["-m", "airlock", "--help"], ["-c", everything]):
        done = subprocess.run(
            [sys.executable, "-S", "-P", *command],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def link(found: metadata.Distribution, folder: Path) -> None:
    """A distribution's files, and what was compiled of them, in a folder of few others."""
    for file in found.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        goal, source = folder / file, Path(str(found.locate_file(file)))
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.symlink_to(source)
        compiled = source.parent / "__pycache__"
        if compiled.is_dir() and not (goal.parent / "__pycache__").exists():
            (goal.parent / "__pycache__").symlink_to(compiled)
