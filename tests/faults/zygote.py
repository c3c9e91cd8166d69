"""One process that has imported all of a flow, and forks a child for each run: 2 s saved each time.

``python -m tests.faults.zygote SOCKET``. A request is one line of JSON; the answer the child's pid,
and, when it has ended, its exit status, on lines of their own. The zygote ends with its standard
input, and so with whoever started it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(slots=True, kw_only=True)
class Child:
    """One run of ``python -m flows NAME PARAMETERS``, and where its end can be heard."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int | None = None

    async def wait(self) -> int:
        """Its exit status; the signal that ended it as a negative number."""
        if self.status is None:
            self.status = int(await self.reader.readline() or -1)
            self.writer.close()
        return self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Zygote:
    """How to reach it."""

    path: Path

    async def run(
        self,
        flow: str,
        parameters: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        fault: Any = None,
    ) -> Child:
        """Start a run in a session of its own, with the injector armed if there is a fault."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        request = {
            "flow": flow,
            "parameters": dict(parameters),
            "environment": dict(environment),
            "directory": str(directory),
            "log": str(log),
            "fault": asdict(fault) if fault else None,
        }
        writer.write(f"{json.dumps(request)}\n".encode())
        await writer.drain()
        return Child(pid=int(await reader.readline()), reader=reader, writer=writer)


@asynccontextmanager
async def running(path: Path, environment: Mapping[str, str]) -> AsyncGenerator[Zygote]:
    """A zygote that is ready, ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.zygote", str(path)),
        cwd=CHECKOUT,
        env=dict(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # It ends with us, not with Ctrl-C in the terminal, which is for us.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("The zygote did not start; what it wrote is above.")
        yield Zygote(path=path)
    finally:
        process.stdin.close()
        await process.wait()


def end_on_term() -> None:
    """SIGTERM cancels the task that runs, which then ends what it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


# ---------------------------------------------------------------- inside


def main(path: str) -> int:
    """Serve until standard input ends; in a child, the exit status of its flow."""
    sys.argv = ["python -m flows"]
    # All that a flow will need.
    for name in ("deploy", "refresh_staging", "rollback", "recover", "__main__"):
        with suppress(ModuleNotFoundError):
            importlib.import_module(f"flows.{name}")
    import flows.__main__
    from tests.faults import clock, guards, injector

    # Pages that the collector touches are copied in each child.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        request = _serve(listener, selector)
    if request is None:
        return 0
    _become(request)
    if request["fault"] is not None:
        injector.arm(injector.Fault(**request["fault"]))
    guards.remove_named()
    clock.set_named()
    sys.argv = ["python -m flows", request["flow"], json.dumps(request["parameters"])]
    return flows.__main__.main()


def _serve(listener: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """The request in the child that is to do it; None in the zygote when it is to end."""
    waiting: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return None
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request = json.loads(connection.makefile().readline())
                pid = os.fork()
                if pid == 0:
                    connection.close()
                    for handle, other in waiting.values():
                        os.close(handle)
                        other.close()
                    return request
                connection.sendall(f"{pid}\n".encode())
                handle = os.pidfd_open(pid)
                waiting[pid] = (handle, connection)
                selector.register(handle, selectors.EVENT_READ, pid)
            else:
                # At once: whoever looks at the process table must not meet a zombie.
                _, status = os.waitpid(key.data, 0)
                handle, connection = waiting.pop(key.data)
                selector.unregister(handle)
                os.close(handle)
                with suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                connection.close()


def _become(request: dict[str, Any]) -> None:
    """What a process of its own would have had from the start."""
    os.setsid()
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, handle in enumerate((nothing, log, log)):
        os.dup2(handle, number)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
