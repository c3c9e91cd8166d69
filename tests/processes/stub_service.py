"""A service that behaves as BEHAVIOUR says: a comma-separated list, numbers after a colon.

A file named SICK makes it unhealthy, and SIGUSR1 ends it.

late:S never_ready hangs exits dies_of_deals dies_after:S dies slowly flaps ignores_term
forks leaves_a_daemon own_port shares_port only_public log_errors wrong_token mute
"""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

BEHAVIOUR = dict(
    word.partition(":")[::2] for word in os.environ.get("BEHAVIOUR", "").split(",") if word
)
DRAIN_S = 5
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
# In a session of its own, and its parent is gone.
DAEMON = (
    "import subprocess, sys; "
    f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)"
)


class Service:
    def __init__(self) -> None:
        self.asked = 0
        self.open = 0

    def health(self) -> tuple[int, dict[str, str]]:
        self.asked += 1
        sick = (
            "never_ready" in BEHAVIOUR
            or Path("SICK").exists()
            or ("flaps" in BEHAVIOUR and self.asked % 6 == 0)
        )
        answer = {
            "status": "unhealthy" if sick else "ok",
            "release": os.environ.get("RELEASE", "none"),
            "version": Path("VERSION").read_text().strip() if Path("VERSION").exists() else "",
            "pid": str(os.getpid()),
            "asked": str(self.asked),
        }
        if "mute" not in BEHAVIOUR:
            token = os.environ.get("AIRLOCK_INSTANCE", "none")
            answer["instance"] = "somebody-else" if "wrong_token" in BEHAVIOUR else token
        return (503 if sick else 200), answer

    def deals(self) -> tuple[int, dict[str, str]]:
        if "dies_of_deals" in BEHAVIOUR:
            os._exit(3)
        return 200, {"deals": "none"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if "hangs" in BEHAVIOUR:
                await asyncio.sleep(60)
            path = head.split()[1].decode()
            known = {"/health": self.health, "/deals": self.deals}
            status, answer = known.get(path.partition("?")[0], lambda: (404, {}))()
            body = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1


def sockets() -> list[socket.socket]:
    mine = os.environ.get("LISTEN_PID") == str(os.getpid())
    if mine and not {"own_port", "shares_port"} & BEHAVIOUR.keys():
        count = 1 if "only_public" in BEHAVIOUR else int(os.environ["LISTEN_FDS"])
        return [socket.socket(fileno=3 + number) for number in range(count)]
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "shares_port" in BEHAVIOUR:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", int(os.environ["PORT"])))
    return [made]


async def start_children() -> None:
    for word, code in (("forks", STUBBORN), ("leaves_a_daemon", DAEMON)):
        if word in BEHAVIOUR:
            await asyncio.create_subprocess_exec(sys.executable, "-c", code)


def die(servers: list[asyncio.Server]) -> None:
    if "slowly" in BEHAVIOUR:
        # As a large process does: its sockets are closed before it is gone.
        for server in servers:
            server.close()
        asyncio.get_running_loop().call_later(0.25, os._exit, 3)
    else:
        os._exit(3)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    if "exits" in BEHAVIOUR:
        sys.exit("cannot start: postgresql://user:hunter22@db/x is not there")
    await start_children()
    await asyncio.sleep(float(BEHAVIOUR.get("late", 0)))
    service, ended = Service(), asyncio.Event()
    loop = asyncio.get_running_loop()
    if "ignores_term" in BEHAVIOUR:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    if "dies_after" in BEHAVIOUR:
        loop.call_later(float(BEHAVIOUR["dies_after"]), os._exit, 3)
    servers = [
        await asyncio.start_server(service.serve, sock=each, backlog=512) for each in sockets()
    ]
    loop.add_signal_handler(signal.SIGUSR1, die, servers)
    say("serving")
    if "log_errors" in BEHAVIOUR:
        say("ERROR the table deals has no column halted")
    await ended.wait()
    for server in servers:
        server.close()
    until = loop.time() + DRAIN_S
    while service.open and loop.time() < until:  # noqa: ASYNC110 – short, as the rest
        await asyncio.sleep(0.005)


asyncio.run(main())
