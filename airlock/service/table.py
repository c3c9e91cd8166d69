"""The process table and the socket table of Linux, read as they are now.

Identity is start ticks since boot (field 22 of /proc/PID/stat, proc_pid_stat(5)): psutil's
create_time() adds the wall clock's boot time, which moves when the clock is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN, _PIDFD_GETFD = "0A", 438
Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One line of the process table."""

    pid: int
    state: str
    parent: int
    session: int
    create_time: float

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZXx"

    @property
    def started_at(self) -> datetime:
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self.create_time
        return datetime.now(UTC) - timedelta(seconds=age_s)


@cache
def boot_id() -> str:
    """What the kernel calls this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read(pid: int) -> Process | None:
    """The process of that pid, or None."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return Process(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        create_time=int(fields[19]) / _TICKS,
    )


def everything() -> list[Process]:
    """Every process that is alive."""
    pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    return [found for pid in pids if (found := read(pid)) is not None and found.is_alive]


def family(pid: int, create_time: float, *, whole_session: bool) -> list[Process]:
    """The process with its descendants, and with its whole session if it leads one."""
    processes = everything()
    leader = next((p for p in processes if p.pid == pid), None)
    if leader is not None and leader.create_time != create_time:
        return []
    wanted = {pid}
    if whole_session:
        wanted |= {p.pid for p in processes if p.session == pid and p.create_time >= create_time}
    grown = True
    while grown:
        more = {p.pid for p in processes if p.parent in wanted} - wanted
        wanted |= more
        grown = bool(more)
    return [p for p in processes if p.pid in wanted]


def environ(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it cannot be read."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when they cannot be read."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(item) for item in raw.rstrip(b"\0").split(b"\0")] if raw else []


def directory(pid: int) -> Path | None:
    """The working folder of a process, or None when it cannot be read."""
    try:
        return (PROC / str(pid) / "cwd").readlink()
    except OSError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Socket:
    local: Address
    remote: Address
    inode: int
    uid: int


def _address(text: str) -> Address:
    digits, _, port = text.partition(":")
    raw = bytes.fromhex(digits)
    # Each 32-bit word is printed in the machine's own byte order.
    words = b"".join(
        int.from_bytes(raw[i : i + 4], "little").to_bytes(4) for i in range(0, len(raw), 4)
    )
    return plain_host(str(ipaddress.ip_address(words))), int(port, 16)


@cache
def plain_host(host: str) -> str:
    """An IP address in its usual spelling; IPv4 inside IPv6 becomes IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _lines(name: str) -> Iterator[list[str]]:
    try:
        lines = (PROC / "self/net" / name).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        yield line.split()


def _sockets(port: int, *, remote: int | None = None) -> Iterator[_Socket]:
    """The sockets whose own port it is: those that listen, or those connected with a port.

    The kernel lists those that listen first, and a busy service leaves thousands of others behind:
    they are not even read. https://docs.kernel.org/networking/proc_net_tcp.html
    """
    marks = [f":{number:04X} " for number in (port, remote) if number is not None]
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (PROC / "self/net" / name).open() as lines:
            next(lines, "")
            for line in lines:
                if remote is None and line.split(maxsplit=4)[3] != _LISTEN:
                    break
                if all(mark in line for mark in marks):
                    yield _socket(line.split())


def _socket(fields: list[str]) -> _Socket:
    return _Socket(
        local=_address(fields[1]),
        remote=_address(fields[2]),
        inode=int(fields[9]),
        uid=int(fields[7]),
    )


def listening(host: str, port: int) -> set[int]:
    """The inodes of the sockets that listen there, or on every address."""
    here = {plain_host(str(info[4][0])) for info in socket.getaddrinfo(host, port)}
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 — compared with, never bound
    return {
        found.inode
        for found in _sockets(port)
        if found.local[0] in here | everywhere or here & everywhere
    }


def accepted(client: Address, server: Address) -> int | None:
    """The inode of the server's end of a connection; None before it is accepted, or elsewhere."""
    ends = (plain_host(server[0]), server[1]), (plain_host(client[0]), client[1])
    connected = _sockets(server[1], remote=client[1])
    return next((s.inode for s in connected if (s.local, s.remote) == ends), None) or None


def owner(client: Address, server: Address) -> int | None:
    """The user who has the client's end of a connection; None where it is not on this machine."""
    ends = (plain_host(client[0]), client[1]), (plain_host(server[0]), server[1])
    found = (s.uid for s in _sockets(client[1], remote=server[1]) if (s.local, s.remote) == ends)
    return next(found, None)


def connected(inodes: Collection[int], servers: Collection[Address]) -> Address | None:
    """The first of these servers that one of the sockets is connected to, over TCP."""
    for name in ("tcp", "tcp6"):
        for fields in _lines(name):
            # Most lines are other people's.
            if int(fields[9]) in inodes and (remote := _address(fields[2])) in servers:
                return remote
    return None


def descriptors(pid: int) -> dict[int, int]:
    """The sockets a process holds: inode to descriptor. Empty when that cannot be read."""
    found: dict[int, int] = {}
    folder = PROC / str(pid) / "fd"
    try:
        links = list(folder.iterdir())
    except OSError:
        return found
    for entry in links:
        try:
            link = str(entry.readlink())
        except OSError:
            continue
        if link.startswith("socket:["):
            found[int(link[8:-1])] = int(entry.name)
    return found


def holders(inodes: Collection[int]) -> dict[int, set[int]]:
    """Which processes hold these sockets: pid to inodes. Airlock's own process is left out."""
    found: dict[int, set[int]] = {}
    if not inodes:
        return found
    for process in everything():
        held = set(descriptors(process.pid)) & set(inodes)
        if held and process.pid != os.getpid():
            found[process.pid] = held
    return found


def take_socket(pid: int, descriptor: int) -> socket.socket:
    """A second handle on another process's socket (pidfd_getfd(2), Linux 5.6).

    Raises PermissionError where the kernel does not let us (another user's process, or
    kernel.yama.ptrace_scope above 0), and OSError otherwise.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(pid)
    try:
        taken = int(libc.syscall(_PIDFD_GETFD, handle, descriptor, 0))
    finally:
        os.close(handle)
    if taken < 0:
        code = ctypes.get_errno() or errno.EPERM
        raise OSError(code, os.strerror(code))
    return socket.socket(fileno=taken)
