"""Who is on the network between Airlock and a database, and what he gets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airlock import binaries, metrics, server, settings, snapshot
from airlock.alert import Alert, channels
from airlock.binaries import Binaries
from airlock.errors import AirlockError, Refused, Transient
from airlock.postgres import connect
from airlock.snapshot import logical, physical, tool
from tests.attacks.wire import (
    ATTACKER,
    OTHER_NAME,
    PLAIN,
    SERVER,
    SSL_REQUEST,
    Authority,
    Listener,
    Network,
    authority,
)

PASSWORD = "the password of production"
DATABASE = "postgres"
_LOGIN = f"postgres:{PASSWORD.replace(' ', '%20')}"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network().living() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_certificates_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def programs() -> Binaries:
    try:
        return binaries.find(tls=True)
    except Refused as error:
        pytest.skip(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A production with TLS at SERVER and OTHER_NAME, one without at PLAIN, and a dump of it."""

    network: Network
    right: Authority
    wrong: Authority
    certificate: Path
    port: int
    plain_port: int
    dump: Path


@pytest.fixture(scope="module")
def wire(
    network: Network, programs: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("wire")
    right, wrong = authority("right", folder), authority("wrong", folder)
    certificate, key = right.issue(SERVER, folder)
    data_dir, dump = folder / "tls", folder / "dump"
    tls = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    shared = {**server.SCRATCH_SETTINGS, "wal_level": "replica", "max_wal_senders": "4"}
    stack = contextlib.AsyncExitStack()

    async def begin() -> tuple[int, int]:
        await server.initdb(programs, data_dir)
        with (data_dir / "pg_hba.conf").open("a") as hba:
            for database in ("all", "replication"):
                hba.write(f"host {database} all 192.0.2.0/24 scram-sha-256\n")
        await asyncio.to_thread(_copy, data_dir, folder / "plain")
        encrypted, open_ = [
            await stack.enter_async_context(
                server.running(programs, folder / name, port=0, settings=shared | more)
            )
            for name, more in (
                ("tls", {"listen_addresses": f"{SERVER},{OTHER_NAME}", **tls}),
                ("plain", {"listen_addresses": PLAIN}),
            )
        ]
        for each in (encrypted, open_):
            async with connect(each.url()) as conn:
                await conn.execute(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
        await tool.run(
            logical.dump_command(programs, dump, jobs=1), env=tool.environment(encrypted.url())
        )
        return encrypted.port, open_.port

    try:
        port, plain_port = network.run(begin())
        yield Wire(
            network=network,
            right=right,
            wrong=wrong,
            certificate=certificate,
            port=port,
            plain_port=plain_port,
            dump=dump,
        )
    finally:
        network.run(stack.aclose())


def _copy(from_: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", from_, to], check=True)


# ---------------------------------------------------------------- each way to a database

Use = Callable[[str, Binaries, Path], Coroutine[Any, Any, None]]
FOLDER = "taken"


async def _asyncpg(url: str, _programs: Binaries, _folder: Path) -> None:
    async with connect(url) as conn:
        await conn.execute("SELECT 1")


async def _replication(url: str, _programs: Binaries, _folder: Path) -> None:
    if (reason := await physical.why_no_connection(url)) is not None:
        raise Refused(reason)


async def _pg_dump(url: str, programs: Binaries, folder: Path) -> None:
    command = logical.dump_command(programs, folder / FOLDER, jobs=1)
    await tool.run(command, env=tool.environment(url))


async def _pg_basebackup(url: str, programs: Binaries, folder: Path) -> None:
    command = physical.command(programs, folder / FOLDER, checksums="NONE")
    await tool.run(command, env=tool.environment(url))


async def _pg_restore(url: str, programs: Binaries, folder: Path) -> None:
    command = logical.restore_command(programs, folder / "dump", database=DATABASE, jobs=1)
    await tool.run(command, env=tool.environment(url))


USES = (_asyncpg, _replication, _pg_dump, _pg_basebackup, _pg_restore)
each_use = pytest.mark.parametrize("use", USES, ids=[use.__name__[1:] for use in USES])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a dump is, and what a program writes is put."""
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def with_dump(folder: Path, wire: Wire) -> Path:
    (folder / "dump").symlink_to(wire.dump)
    return folder


def _url(host: str, port: int, query: str = "") -> str:
    return f"postgresql://{_LOGIN}@{host}:{port}/{DATABASE}{'?' if query else ''}{query}"


# ---------------------------------------------------------------- a peer that says "no TLS"

DOWNGRADES = {"no TLS": b"N", "an error": b"EFATAL: no\0", "the server's greeting": b"R\0\0\0\x08"}


@pytest.mark.attack(
    by="a peer on the network",
    tries="to answer in the server's place that it has no TLS",
    sample=True,
)
@pytest.mark.parametrize("use", USES[:4], ids=[use.__name__[1:] for use in USES[:4]])
def test_a_peer_without_tls_hears_the_question_for_tls_and_nothing_else(
    use: Use, network: Network, programs: Binaries, folder: Path
) -> None:
    heard = network.run(_heard_by_a_peer(use, programs, folder, b"N"))
    assert set(heard) == {SSL_REQUEST}


@pytest.mark.attack(
    by="a peer on the network", tries="to answer the question for TLS with something else"
)
@pytest.mark.parametrize("answer", DOWNGRADES.values(), ids=DOWNGRADES)
@each_use
def test_whatever_a_peer_answers_it_hears_nothing_in_plain_text(
    use: Use, answer: bytes, network: Network, programs: Binaries, with_dump: Path
) -> None:
    heard = network.run(_heard_by_a_peer(use, programs, with_dump, answer))
    assert set(heard) == {SSL_REQUEST}


@pytest.mark.attack(
    by="a peer on the network",
    tries="to be spoken to in plain text because the environment prefers TLS only",
    sample=True,
)
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
@pytest.mark.parametrize("place", ["PGSSLMODE", "address"])
@each_use
def test_a_mode_that_falls_back_to_plain_text_is_refused_before_the_first_byte(
    use: Use,
    place: str,
    mode: str,
    network: Network,
    programs: Binaries,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if place == "PGSSLMODE":
        monkeypatch.setenv(place, mode)
    query = f"sslmode={mode}" if place == "address" else ""
    heard = network.run(_heard_by_a_peer(use, programs, folder, b"N", query=query, says="sslmode"))
    assert heard == []


async def _heard_by_a_peer(
    use: Use, programs: Binaries, folder: Path, answer: bytes, *, query: str = "", says: str = ""
) -> list[bytes]:
    async with Listener(answer) as peer:
        with pytest.raises((AirlockError, OSError)) as refused:
            await use(_url(ATTACKER, peer.port, query), programs, folder)
    assert PASSWORD not in str(refused.value)
    assert says in str(refused.value)
    return peer.heard


@pytest.mark.attack(
    by="a peer on the network", tries="to be an address that only looks like this machine"
)
@pytest.mark.parametrize("host", ["127.1", "0", "localhost.example", "127.0.0.1.example", "[::2]"])
def test_what_only_looks_like_loopback_needs_tls(host: str) -> None:
    with pytest.raises(Refused, match="plain text"):
        tool.environment(_url(host, 5432, "sslmode=prefer"))
    assert tool.environment(_url(host, 5432))["PGSSLMODE"] == "require"


@pytest.mark.attack(
    by="who answers this machine's questions for names", tries="to make localhost another machine"
)
def test_a_localhost_that_leads_elsewhere_needs_tls(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{ATTACKER} localhost\n")
    program = "import sys; from airlock import dsn; print(dsn.is_this_machine('localhost'))"
    command = f'mount --bind "{hosts}" /etc/hosts && exec "{sys.executable}" -c "{program}"'
    done = subprocess.run(  # noqa: PLW1510 – a failure is looked at
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        pytest.skip(f"a mount namespace needs root: {done.stderr}")
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- certificates


@pytest.mark.attack(
    by="a peer on the network", tries="to show a certificate of its own authority, or another name"
)
@pytest.mark.parametrize("place", ["environment", "address"])
@each_use
def test_only_the_server_with_the_right_certificate_is_spoken_to(
    use: Use,
    place: str,
    wire: Wire,
    programs: Binaries,
    with_dump: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attempt(host: str, mode: str, root: Path) -> None:
        query = f"sslmode={mode}&sslrootcert={root}"
        if place == "environment":
            monkeypatch.setenv("PGSSLMODE", mode)
            monkeypatch.setenv("PGSSLROOTCERT", str(root))
            query = ""
        wire.network.run(use(_url(host, wire.port, query), programs, with_dump))

    for mode, host, root in (
        ("verify-full", OTHER_NAME, wire.right.file),
        ("verify-full", SERVER, wire.wrong.file),
        ("verify-ca", SERVER, wire.wrong.file),
        ("require", SERVER, wire.wrong.file),
    ):
        with pytest.raises(AirlockError, match=r"(?i)certificate"):
            attempt(host, mode, root)
        assert not (with_dump / FOLDER).exists() or not any((with_dump / FOLDER).iterdir())
    attempt(SERVER, "verify-full", wire.right.file)


@pytest.mark.attack(
    by="a peer on the network", tries="to go on with a stolen key whose certificate was revoked"
)
@pytest.mark.parametrize("place", ["environment", "address"])
@each_use
def test_a_revoked_certificate_is_refused_by_all_alike(
    use: Use,
    place: str,
    wire: Wire,
    programs: Binaries,
    with_dump: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = f"sslmode=verify-full&sslrootcert={wire.right.file}"
    revoked = wire.right.revoked(wire.certificate)
    if place == "environment":
        monkeypatch.setenv("PGSSLCRL", str(revoked))
    else:
        query += f"&sslcrl={revoked}"
    with pytest.raises(AirlockError, match=r"revoked|certificate verify failed"):
        wire.network.run(use(_url(SERVER, wire.port, query), programs, with_dump))


@pytest.mark.attack(
    by="a peer on the network", tries="to be asked again and again until somebody gives in"
)
def test_a_wrong_certificate_is_refused_with_its_remedy_and_a_missing_tls_with_another(
    wire: Wire, programs: Binaries, folder: Path
) -> None:
    def says(url: str, kind: type[AirlockError], words: str) -> None:
        with pytest.raises(kind, match=words):
            wire.network.run(_asyncpg(url, programs, folder))

    query = f"sslmode=verify-full&sslrootcert={wire.right.file}"
    says(_url(OTHER_NAME, wire.port, query), Refused, f"certificate of {OTHER_NAME}.*sslrootcert")
    says(
        _url(PLAIN, wire.plain_port), Transient, r"did not agree to TLS.*ssl = on.*allow_plaintext"
    )


@pytest.mark.attack(
    by="a peer on the network",
    tries="to show a certificate that ~/.postgresql/root.crt does not vouch for",
)
@each_use
def test_a_root_certificate_of_the_user_is_checked_by_all_alike(
    use: Use, wire: Wire, programs: Binaries, with_dump: Path, tmp_path: Path
) -> None:
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_bytes(wire.wrong.file.read_bytes())
    with pytest.raises(AirlockError, match=r"(?i)certificate"):
        wire.network.run(use(_url(SERVER, wire.port), programs, with_dump))


@pytest.mark.attack(
    by="a peer on the network", tries="to read what goes to a server that has no TLS"
)
@each_use
def test_a_server_without_tls_is_used_only_where_the_target_says_so(
    use: Use,
    wire: Wire,
    programs: Binaries,
    with_dump: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROD_URL", _url(PLAIN, wire.plain_port))
    with pytest.raises(AirlockError, match=r"TLS|SSL"):
        wire.network.run(use(_target(tmp_path, "").database_url, programs, with_dump))
    allowed = _target(tmp_path, "allow_plaintext = true").database_url
    wire.network.run(use(allowed, programs, with_dump))


@pytest.mark.attack(
    by="a peer on the network",
    tries="to have one of the connections of a backup and its restore fall back",
)
@pytest.mark.parametrize("place", ["environment", "address"])
@pytest.mark.parametrize("way", ["physical", "logical", "dev server"])
def test_a_snapshot_is_taken_and_restored_over_verified_connections(
    way: str, place: str, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = f"sslmode=verify-full&sslrootcert={wire.right.file}" if place == "address" else ""
    if place == "environment":
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        monkeypatch.setenv("PGSSLROOTCERT", str(wire.right.file))
    for name in ("PROD_URL", "DEV_URL"):
        monkeypatch.setenv(name, _url(SERVER, wire.port, query))
    clone = 'clone = {dev_url_env = "DEV_URL"}\n' if way == "dev server" else ""
    provider = "logical" if clone else way
    target = _target(tmp_path, f'{clone}snapshot = {{provider = "{provider}"}}')

    async def there_and_back() -> str:
        taken = await snapshot.take(target, head=None)
        async with (
            snapshot.restore(taken, target, name="rehearsal-1") as clone,
            connect(clone.url) as conn,
        ):
            return str(await conn.fetchval("SHOW ssl"))

    assert wire.network.run(there_and_back()) == ("on" if clone else "off")


def _target(folder: Path, line: str) -> settings.Target:
    file = folder / "airlock.toml"
    file.write_text(f'[targets.prod]\ndatabase_url_env = "PROD_URL"\n{line}\n')
    return settings.load(file).target("prod")


# ---------------------------------------------------------------- alerts and metrics

ALERT = Alert(
    headline="STRANDED",
    target="prod",
    deploy=1,
    state="stranded",
    error="for us only",
    ref="c" * 40,
)
CHANNELS = {
    "slack": 'slack_url_env = "THERE"',
    "webhook": 'webhook_url_env = "THERE"',
    "pagerduty": 'pagerduty_key_env = "KEY"\npagerduty_url = "{url}"',
    "github": 'github = {{ repository = "a/b", token_env = "KEY", api_url = "{url}" }}',
    "email": 'email = {{ host = "{host}", port = {port}, sender = "a@b.example", '
    'to = ["c@d.example"], tls = "none", user = "a", password_env = "KEY" }}',
}


@pytest.mark.attack(
    by="a listener on the network", tries="to read an alert and its key on their way", sample=True
)
@pytest.mark.parametrize("channel", CHANNELS)
def test_no_alert_leaves_this_machine_in_plain_text(
    channel: str, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(line: str) -> tuple[str, list[bytes]]:
        greeting = b"220 here\r\n" if channel == "email" else b""
        answer = b"500 no\r\n" if greeting else b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"
        async with Listener(answer, greeting) as peer:
            url = f"http://{ATTACKER}:{peer.port}/{PASSWORD.replace(' ', '-')}"
            monkeypatch.setenv("THERE", url)
            table = CHANNELS[channel].format(url=url, host=ATTACKER, port=peer.port)
            target = _target(tmp_path, f"{line}\n[targets.prod.alerts]\n{table}")
            try:
                await channels.CHANNELS[channel].send(target, "key", ALERT)
            except Exception as error:  # noqa: BLE001 – the channel's own, as the outbox does
                return str(error), peer.heard
            return "", peer.heard

    monkeypatch.setenv("KEY", PASSWORD)
    said, heard = network.run(send(""))
    assert heard == []
    assert "allow_plaintext" in said
    assert "password" not in said
    assert network.run(send("allow_plaintext = true"))[1] != []


@pytest.mark.attack(
    by="a listener on the network", tries="to read the numbers, and the Pushgateway's password"
)
def test_no_numbers_leave_this_machine_in_plain_text(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def push(line: str) -> list[bytes]:
        async with Listener(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as peer:
            monkeypatch.setenv("PUSH_URL", f"http://a:secret@{ATTACKER}:{peer.port}")
            metrics_of = _target(
                tmp_path, f'{line}\n[targets.prod.metrics]\npush_url_env = "PUSH_URL"'
            )
            with contextlib.suppress(Refused):
                await metrics._push(metrics_of, "PUSH_URL", "numbers 1\n")
            return peer.heard

    assert network.run(push("")) == []
    assert b"PUT /metrics" in network.run(push("allow_plaintext = true"))[0]
