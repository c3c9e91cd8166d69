"""A network of a test's own, the certificates in it, and a peer that only listens."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import os
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.patience import PATIENCE_S

T = TypeVar("T")

# Addresses for documentation (RFC 5737): neither loopback nor anybody's.
SERVER, OTHER_NAME, PLAIN, ATTACKER = (f"192.0.2.{number}" for number in range(1, 5))
_CLONE_NEWNET = 0x40000000
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


class Network:
    """A thread in a network namespace that has these addresses and nothing else, and its loop.

    What the thread starts is in the namespace too.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.refused = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 90) -> T:
        """What the work gives, done in the namespace."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def _live(self) -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            _ip("link", "set", "lo", "up")
            for address in (SERVER, OTHER_NAME, PLAIN, ATTACKER):
                _ip("addr", "add", f"{address}/32", "dev", "lo")
        except (OSError, subprocess.CalledProcessError) as error:
            self.refused = str(error)
        self._ready.set()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @contextmanager
    def living(self) -> Iterator[Network]:
        self._thread.start()
        self._ready.wait(30)
        try:
            if self.refused:
                pytest.skip(f"a network namespace needs root and ip(8): {self.refused}")
            yield self
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(30)
            self.loop.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certificate authority. file: its own certificate, as sslrootcert takes it."""

    file: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, address: str, folder: Path) -> tuple[Path, Path]:
        """Certificate and key of the server at this address."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = (
            _certificate(address, self.certificate.subject, key)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _written(folder, address, made, key)

    def revoked(self, certificate: Path) -> Path:
        """A revocation list with this certificate on it, as sslcrl takes it."""
        now = datetime.now(UTC)
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(days=1))
            .next_update(now + timedelta(days=1))
            .add_revoked_certificate(entry)
            .sign(self.key, hashes.SHA256())
        )
        file = certificate.with_suffix(".crl")
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return file


def authority(name: str, folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        _certificate(name, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(file=_written(folder, name, made, key)[0], key=key, certificate=made)


def _certificate(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _written(
    folder: Path, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    certificate, secret = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.touch(mode=0o600)
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, secret


@dataclass(slots=True)
class Listener:
    """Somebody on the network who takes the server's place, and keeps what he is sent.

    answer: what he says to the first bytes of each connection. He hangs up on whoever goes on.
    greeting: what he says before.
    """

    answer: bytes
    greeting: bytes = b""
    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    _server: asyncio.Server = field(init=False)

    async def __aenter__(self) -> Listener:
        self._server = await asyncio.start_server(self._take, ATTACKER, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.heard)
        self.heard.append(b"")
        writer.write(self.greeting)
        try:
            for _ in range(2):
                self.heard[number] += await reader.read(65536)
                writer.write(self.answer)
        except OSError:
            pass
        finally:
            writer.close()
