"""What processes listen on, as the kernel's tables have it: TCP, UDP and Unix sockets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

_TCP_LISTEN, _UNIX_LISTEN = "0A", 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """One address on which processes take connections or datagrams. path: @ for abstract ones."""

    kind: str
    address: str
    port: int = 0

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.address).is_loopback


def family(roots: Iterable[int], environ: str) -> set[int]:
    """The processes, what descends from them, and those with that line in their environment."""
    found = set(roots)
    for process in psutil.process_iter():
        with suppress(OSError):
            if environ.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.add(process.pid)
    for pid in tuple(found):
        with suppress(psutil.NoSuchProcess):
            found |= {each.pid for each in psutil.Process(pid).children(recursive=True)}
    return found


def of(pids: Iterable[int]) -> set[Listener]:
    """What they listen on at this moment, each in its own network namespace."""
    found: set[Listener] = set()
    for pid in pids:
        with suppress(OSError):
            sockets = {
                link.removeprefix("socket:[").removesuffix("]")
                for each in Path(f"/proc/{pid}/fd").iterdir()
                if (link := _target(each)).startswith("socket:[")
            }
            found |= {where for inode, where in _listening(pid) if inode in sockets}
    return found


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""


def _listening(pid: int) -> Iterable[tuple[str, Listener]]:
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if kind.startswith("udp") or fields[3] == _TCP_LISTEN:
                host, _, port = fields[1].partition(":")
                yield fields[9], Listener(kind[:3], _address(host), int(port, 16))
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        # What has no name nobody can connect to; what only connects has no name either.
        if len(fields) == 8 and (int(fields[3], 16) & _UNIX_LISTEN or fields[4] == "0002"):
            yield fields[6], Listener("unix", fields[7])


def _address(text: str) -> str:
    """An address as the kernel prints it: words of four bytes, in the machine's own order."""
    raw = bytes.fromhex(text)
    words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
    return str(ip_address(b"".join(words)))


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def modes(path: Path) -> list[int]:
    """Of the folders above a path, from the next one up."""
    return [os.stat(folder).st_mode & 0o777 for folder in path.parents]  # noqa: PTH116
