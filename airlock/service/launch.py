"""Starts one service in a session of its own and says its pid: run as a script, not imported.

python -I -S launch.py --fds 7,9 --log FILE --directory FOLDER -- command…

The sockets become descriptors 3, 4, … as systemd hands them over (sd_listen_fds(3)); LISTEN_PID is
only known between fork and exec, which is why this script exists. It ends at once, so the service
belongs to init and outlives whoever asked for it. Prints the pid, or fails with the reason.

With --tether yes it stays, and ends the service with all that came of it as soon as its standard
input closes: whoever holds the other end may have let go, or been killed.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

FIRST = 3
RESET = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGXFSZ", "SIGCHLD")
# prctl(2): PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER.
_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36


def become(fds: list[int], log: str, directory: str, command: list[str]) -> None:
    """Turn this process into the service. Returns never; raises OSError."""
    os.setsid()
    # Ignored signals survive exec: a service started from a background job would not hear TERM.
    for name in RESET:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.chdir(directory)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    # First out of the way: a target number may be a source that is still needed.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]
    for fd in fds:
        os.set_inheritable(fd, False)
    for number, fd in enumerate([nothing, output, output, *high]):
        os.dup2(fd, number)
    if fds:
        os.environ["LISTEN_FDS"] = str(len(fds))
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDNAMES"] = ":".join(["http", "probe"][: len(fds)])
    os.execvp(command[0], command)  # noqa: S606 — no shell is the point


def main(arguments: list[str]) -> int:
    """Fork, become the service there, and report."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    fds = [int(fd) for fd in options["--fds"].split(",") if fd]
    command = arguments[split + 1 :]
    tethered = "--tether" in options
    if tethered:
        prepare()
    reading, low = os.pipe()
    writing = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(low)
    pid = os.fork()
    if pid == 0:
        try:
            if tethered:
                ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
            become(fds, options["--log"], options["--directory"], command)
        except OSError as error:
            os.write(writing, f"{error.filename or command[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)
    # Of sockets, too: where the service has ended nobody should listen.
    for fd in (writing, *fds):
        os.close(fd)
    # The pipe closes by itself when the service is executed: nothing read is good news.
    if failure := read_all(reading):
        os.waitpid(pid, 0)
        sys.stderr.write(failure.decode(errors="replace"))
        return 127
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    if tethered:
        read_all(0)
        end_all()
    return 0


def prepare() -> None:
    """Outlive what is sent to a whole group, and get every process that the service leaves."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def end_all() -> None:
    """Kill everything that descends from this process, until nothing does."""
    while True:
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(0.01)


def descendants() -> set[int]:
    """The children of this process, and theirs."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # The name in parentheses may itself hold spaces and parentheses.
            fields = read_file(f"{entry.path}/stat").rpartition(b")")[2].split()
            parents[int(entry.name)] = int(fields[1]) if fields else 0
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def read_file(path: str) -> bytes:
    """What is in the file; nothing, where it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return read_all(fd)
        finally:
            os.close(fd)
    except OSError:
        return b""


def read_all(fd: int) -> bytes:
    """Everything until the other end closes."""
    text = b""
    while chunk := os.read(fd, 4096):
        text += chunk
    return text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
