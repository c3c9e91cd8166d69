"""What the user nobody gets at, tried by a process that really is nobody.

Linux's own rules decide: the process is root's, and changes its effective user for each try.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

NAME = "nobody"

as_nobody = pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")

# Reads places from its input, one line of JSON each time, and says what nobody may do there.
_TRIES = """
import json, os, socket, sys
uid, gid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])

def as_nobody(work, *arguments):
    os.setegid(gid); os.seteuid(uid)
    try:
        return work(*arguments)
    except OSError:
        return None
    finally:
        os.seteuid(0); os.setegid(0)

def read(path):
    with open(path, 'rb') as file:
        file.read(1)
    return 'read'

def listed(path):
    os.listdir(path)
    return 'list'

def walked(roots):
    for root in roots:
        for folder, names, files in os.walk(root):
            yield folder, listed
            for name in files:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    yield path, read

def answered(family, address, said):
    with socket.socket(family, socket.SOCK_STREAM) as peer:
        peer.settimeout(3)
        peer.connect(address if family == socket.AF_UNIX else tuple(address))
        try:
            peer.sendall(bytes.fromhex(said))
            return peer.recv(4096).hex()
        except OSError:
            return ''

for line in sys.stdin:
    asked = json.loads(line)
    got = [[how, path] for path, work in walked(asked.get('walk', []))
           if (how := as_nobody(work, path))]
    tried = sum(1 for _ in walked(asked.get('walk', [])))
    answers = [as_nobody(answered, *each) for each in asked.get('say', [])]
    print(json.dumps({'got': got, 'tried': tried, 'answers': answers}), flush=True)
"""


class Nobody:
    """A process that tries as the user nobody."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return json.loads(await self._process.stdout.readline())

    async def gets_at(self, *roots: Path) -> tuple[list[str], int]:
        """What nobody can read or list below the folders, and how much was tried."""
        said = await self.ask(walk=[str(root) for root in roots])
        return [f"{how} {path}" for how, path in said["got"]], said["tried"]

    async def answer(self, address: str | tuple[str, int], said: bytes) -> bytes | None:
        """What a listener answers to nobody; None where nobody cannot connect."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        (answer,) = (await self.ask(say=[[family, address, said.hex()]]))["answers"]
        return None if answer is None else bytes.fromhex(answer)


@asynccontextmanager
async def nobody() -> AsyncIterator[Nobody]:
    user = pwd.getpwnam(NAME)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _TRIES, str(user.pw_uid), str(user.pw_gid)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield Nobody(process)
    finally:
        process.kill()
        await process.communicate()
