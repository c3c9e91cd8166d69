"""The address of a database, resolved once: the same parameters for asyncpg and for the programs.

An address is a URL; what it does not say is taken from libpq's environment variables. A parameter
that one of the two sides would ignore, where that weakens something, is refused by name.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from airlock.errors import Refused

# A parameter of Airlock's own, which stands for the target's setting of the same name.
ALLOW_PLAINTEXT = "allow_plaintext"
TLS_MODES = ("require", "verify-ca", "verify-full")
_MODES = ("disable", "allow", "prefer", *TLS_MODES)
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SCHEME = re.compile(r"postgres(ql)?(\+\w+)?")
# A host with its port; several stand between commas.
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")
_NOT_A_URL = (
    "The database's address is not of the form postgresql://user:password@host:port/database. Fix "
    "its variable; in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %3A for :."
)
# Where servers have their sockets, in the order in which asyncpg looks.
_SOCKET_FOLDERS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - as above


@dataclass(frozen=True, slots=True)
class Parameter:
    """One connection parameter, and what becomes of it.

    name: empty for what only an environment variable says. variable: libpq's, if it has one.
    why: the remedy where it is refused, the reason where it is ignored.
    unless: values that are ignored although the parameter is refused; they ask for nothing.
    is_read: whether the variable is, or an address only may say it.
    """

    name: str
    variable: str
    fate: Literal["passed", "ignored", "refused"]
    why: str = ""
    unless: tuple[str, ...] = ()
    is_read: bool = True


def _passed(name: str, variable: str) -> Parameter:
    return Parameter(name, variable, "passed")


def _ignored(why: str, *names: tuple[str, str]) -> Iterator[Parameter]:
    return (Parameter(name, variable, "ignored", why) for name, variable in names)


def _refused(name: str, variable: str, why: str, *unless: str) -> Parameter:
    return Parameter(name, variable, "refused", why, unless)


_NO_GSS = "asyncpg does not encrypt with GSSAPI. Use TLS: sslmode=verify-full"
_NO_OAUTH = "asyncpg has no OAuth. Use a password, a client certificate or Kerberos"
_NO_SCRAM_KEY = "asyncpg has no SCRAM keys. Use password, or a passfile"
_POOL = "it configures a pool or a driver of the service; Airlock has neither"

PARAMETERS: tuple[Parameter, ...] = (
    _passed("host", "PGHOST"),
    _passed("port", "PGPORT"),
    _passed("dbname", "PGDATABASE"),
    _passed("user", "PGUSER"),
    _passed("password", "PGPASSWORD"),
    _passed("passfile", "PGPASSFILE"),
    # One environment serves sessions of many roles, those of the clone among them.
    Parameter("options", "PGOPTIONS", "passed", is_read=False),
    _passed("connect_timeout", "PGCONNECT_TIMEOUT"),
    _passed("target_session_attrs", "PGTARGETSESSIONATTRS"),
    _passed("sslmode", "PGSSLMODE"),
    _passed("sslnegotiation", "PGSSLNEGOTIATION"),
    _passed("sslrootcert", "PGSSLROOTCERT"),
    _passed("sslcert", "PGSSLCERT"),
    _passed("sslkey", "PGSSLKEY"),
    _passed("sslcrl", "PGSSLCRL"),
    _passed("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    _passed("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    _passed("krbsrvname", "PGKRBSRVNAME"),
    _passed("gsslib", "PGGSSLIB"),
    _refused("hostaddr", "PGHOSTADDR", "asyncpg has no hostaddr. Write the IP address as the host"),
    _refused(
        "service", "PGSERVICE", "service files are not read. Write what yours says as an address"
    ),
    _refused(
        "sslpassword",
        "",
        "libpq has no variable for it, so the programs would not get it. Use a key without a "
        "passphrase in a file of mode 0600",
    ),
    _refused("sslcrldir", "PGSSLCRLDIR", "asyncpg reads a single file. Use sslcrl"),
    _refused(
        "sslcertmode",
        "PGSSLCERTMODE",
        "asyncpg sends the client certificate that there is. Leave sslcert out to send none",
        "allow",
    ),
    _refused("sslsni", "PGSSLSNI", "asyncpg always names the host. Leave it out", "1"),
    _refused("requiressl", "PGREQUIRESSL", "write sslmode=require", "0"),
    _refused(
        "requirepeer", "PGREQUIREPEER", "asyncpg does not look at the peer. Use TLS: verify-full"
    ),
    _refused(
        "require_auth",
        "PGREQUIREAUTH",
        "asyncpg answers whatever method the server asks for. Use sslmode=verify-full, so that "
        "only your server asks",
    ),
    _refused(
        "channel_binding",
        "PGCHANNELBINDING",
        "asyncpg has no channel binding. Use sslmode=verify-full against the same attacks",
        "prefer",
        "disable",
    ),
    _refused("gssencmode", "PGGSSENCMODE", _NO_GSS, "prefer", "disable"),
    _refused("gssdelegation", "PGGSSDELEGATION", "asyncpg delegates no credentials", "0"),
    _refused("scram_client_key", "", _NO_SCRAM_KEY),
    _refused("scram_server_key", "", _NO_SCRAM_KEY),
    _refused("oauth_issuer", "", _NO_OAUTH),
    _refused("oauth_client_id", "", _NO_OAUTH),
    _refused("oauth_client_secret", "", _NO_OAUTH),
    _refused("oauth_scope", "", _NO_OAUTH),
    _refused(
        "min_protocol_version", "PGMINPROTOCOLVERSION", "asyncpg speaks version 3.0 only", "3.0"
    ),
    _refused(
        "replication",
        "",
        "Airlock opens replication connections by itself. Leave it out",
        *("0", "false", "off", "no"),
    ),
    _refused(
        "schema",
        "",
        "it is a parameter of Prisma. Write options=-csearch_path%3DNAME instead",
        "public",
    ),
    _refused(
        "pgbouncer",
        "",
        "Airlock's sessions hold locks and settings. Write the address of PostgreSQL itself",
        *("false", "0"),
    ),
    _refused(
        "sslidentity",
        "",
        "it is a parameter of Prisma. Convert the PKCS #12 file with openssl pkcs12, and write "
        "sslcert and sslkey",
    ),
    *_ignored(
        "Airlock names its sessions, and finds them by these names",
        ("application_name", "PGAPPNAME"),
        ("fallback_application_name", ""),
    ),
    *_ignored(
        "sessions speak UTF-8, and dates and zones are written out",
        ("client_encoding", "PGCLIENTENCODING"),
        ("", "PGDATESTYLE"),
        ("", "PGTZ"),
        ("", "PGGEQO"),
    ),
    *_ignored(
        "Airlock bounds each call, and has the server end sessions whose client is gone",
        ("keepalives", ""),
        ("keepalives_idle", ""),
        ("keepalives_interval", ""),
        ("keepalives_count", ""),
        ("tcp_user_timeout", ""),
    ),
    *_ignored("TLS is never compressed", ("sslcompression", "PGSSLCOMPRESSION")),
    *_ignored("no keys of sessions are written", ("sslkeylogfile", "")),
    *_ignored("version 3.0 is spoken", ("max_protocol_version", "PGMAXPROTOCOLVERSION")),
    *_ignored("hosts are tried in their order", ("load_balance_hosts", "PGLOADBALANCEHOSTS")),
    *_ignored(
        "service files, and the server's messages in another language, are not read",
        ("", "PGSERVICEFILE"),
        ("", "PGSYSCONFDIR"),
        ("", "PGLOCALEDIR"),
    ),
    *_ignored(
        _POOL,
        ("connection_limit", ""),
        ("pool_timeout", ""),
        ("pool_size", ""),
        ("max_overflow", ""),
        ("pool_max_conns", ""),
        ("socket_timeout", ""),
        ("command_timeout", ""),
        ("statement_cache_size", ""),
        ("prepared_statement_cache_size", ""),
        ("uselibpqcompat", ""),
    ),
)
_BY_NAME: Mapping[str, Parameter] = MappingProxyType(
    {each.name: each for each in PARAMETERS if each.name}
)


def without_password(url: str) -> str:
    """The URL as it may be shown: no password, no query string.

    Raises Refused, showing nothing of it, when it is not one: an "@" or "/" in a password that is
    not percent-encoded makes a piece of the password look like a host or a path.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused(_NOT_A_URL) from None
    login, _, hosts = parts.netloc.rpartition("@")
    rest = parts.path + parts.query + parts.fragment
    sound = all(_is_host(host) for host in hosts.split(","))
    if not _SCHEME.fullmatch(parts.scheme) or "@" in rest or not sound:
        raise Refused(_NOT_A_URL)
    user = login.partition(":")[0]
    return f"{parts.scheme}://{user + '@' if user else ''}{hosts}{parts.path}"


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    return match is not None and int(match["port"] or 0) < 2**16


def of_target(url: str, name: str, *, allow_plaintext: bool) -> str:
    """The address as it is passed around: with the target's word on plain text."""
    if allow_plaintext:
        return f"{url}{'&' if '?' in url else '?'}{ALLOW_PLAINTEXT}=true"
    if ALLOW_PLAINTEXT in dict(parse_qsl(url.partition("?")[2])):
        raise Refused(
            f"An address of target {name} says {ALLOW_PLAINTEXT}, which is a setting. Write "
            f"{ALLOW_PLAINTEXT} = true in [targets.{name}], and remove it from the address."
        )
    return url


def without_marks(query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A query's parameters without ours, as other programs may read it."""
    return [(name, value) for name, value in query if name != ALLOW_PLAINTEXT]


def resolve(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """All parameters of a connection, by libpq's names: the address first, then the environment.

    Raises Refused naming a parameter that cannot be honoured on both sides, or an address that
    would be spoken to in plain text although it is not on this machine.
    """
    said = _in_libpqs_words(_said(url))
    plaintext = said.pop(ALLOW_PLAINTEXT, "") == "true"
    variables = {
        each.name: each for each in PARAMETERS if each.is_read and environ.get(each.variable)
    }
    found = {
        **{each.name: environ[each.variable] for each in variables.values() if each.name},
        **said,
    }
    for name, value in found.items():
        _judge(name, value, name if name in said else variables[name].variable)
    made = {name: value for name, value in found.items() if _BY_NAME[name].fate == "passed"}
    made = _with_login(_with_place(made))
    _refuse_bad_numbers(made)
    return {**_with_tls(made, plaintext=plaintext), "gssencmode": "disable"}


def for_asyncpg(made: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of ``asyncpg.connect``, but for its times.

    settings: of the session, which win over the address.
    """
    options = {name: made[name] for name in ("options",) if name in made}
    # Only in an address does it take the names of files.
    tls = {name: value for name, value in made.items() if name.startswith("ssl")}
    others = ("user", "password", "passfile", "target_session_attrs", "krbsrvname", "gsslib")
    return {
        "dsn": f"postgresql://?{urlencode(tls, quote_via=quote)}",
        "host": made["host"].split(","),
        "port": [int(each) for each in made["port"].split(",")],
        "database": made["dbname"],
        "server_settings": {**options, **settings},
        **{name: made[name] for name in others if name in made},
    }


def for_programs(made: Mapping[str, str]) -> dict[str, str]:
    """The same as libpq's environment variables: argv can be read by every user."""
    return {_BY_NAME[name].variable: value for name, value in made.items()}


def connect_timeout_s(made: Mapping[str, str]) -> float | None:
    """How long connecting may take; None where nothing, or no limit, is said."""
    return max(0.0, float(made.get("connect_timeout", 0))) or None


def needs_tls(made: Mapping[str, str]) -> bool:
    """Whether the connection is made over TLS or not at all."""
    return made["sslmode"] in TLS_MODES


def is_this_machine(host: str) -> bool:
    """Whether what is sent to this host, or socket folder, stays on this machine."""
    if host.startswith("/"):
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower() == "localhost" and _leads_to_loopback(host)


def _leads_to_loopback(name: str) -> bool:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    return all(ip_address(each.partition("%")[0]).is_loopback for each in found)


def _said(url: str) -> dict[str, str]:
    without_password(url)
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    places = [match for each in hosts.split(",") if (match := _HOST.fullmatch(each))]
    ports = [match["port"] or "" for match in places]
    front = {
        "host": ",".join(unquote(match["host"]).strip("[]") for match in places),
        "port": ",".join(ports) if any(ports) else "",
        "user": unquote(user),
        "password": unquote(password),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return {name: value for name, value in front.items() if value} | dict(parse_qsl(parts.query))


def _in_libpqs_words(said: Mapping[str, str]) -> dict[str, str]:
    """What SQLAlchemy, Prisma, node-postgres and JDBC say otherwise."""
    made = dict(said)
    if (database := made.pop("database", None)) is not None:
        made["dbname"] = database
    if (ssl := made.pop("ssl", None)) is not None:
        made.setdefault("sslmode", {"true": "require", "false": "disable"}.get(ssl, ssl))
    if made.get("sslmode") == "no-verify":
        made["sslmode"] = "require"
    accept = made.pop("sslaccept", None)
    if accept is not None and "sslkey" not in made and "sslcert" in made:
        # Prisma's sslcert is the authority's.
        made["sslrootcert"] = made.pop("sslcert")
    if accept == "strict":
        made["sslmode"] = "verify-full"
    return made


def _judge(name: str, value: str, where: str) -> None:
    parameter = _BY_NAME.get(name)
    if parameter is None:
        raise Refused(
            f"The address has the unknown parameter {name}. A setting of the server is written as "
            f"options=-c{name}%3DVALUE; leave out what is meant for another program."
        )
    if parameter.fate == "refused" and value not in parameter.unless:
        raise Refused(f"{where} cannot be honoured: {parameter.why}.")


def _with_place(made: Mapping[str, str]) -> dict[str, str]:
    """Each host with its port; without a host the first socket that there is."""
    hosts = made.get("host", "").split(",")
    ports = (made.get("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        raise Refused(
            f"The address has {len(hosts)} hosts and {len(ports)} ports. Write one port, or one "
            "for each host."
        )
    ports = [port or "5432" for port in ports]
    hosts = [host or _default_host(port) for host, port in zip(hosts, ports, strict=True)]
    return {**made, "host": ",".join(hosts), "port": ",".join(ports)}


def _default_host(port: str) -> str:
    sockets = (f for f in _SOCKET_FOLDERS if Path(f, f".s.PGSQL.{port}").exists())
    return next(sockets, "localhost")


def _with_login(made: Mapping[str, str]) -> dict[str, str]:
    user = made.get("user") or _own_name()
    return {**made, "user": user, "dbname": made.get("dbname") or user}


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise Refused(
            "The address names no user, and the user that Airlock runs as has no name. Write "
            "postgresql://USER@…"
        ) from None


def _refuse_bad_numbers(made: Mapping[str, str]) -> None:
    for name in ("port", "connect_timeout"):
        for value in made.get(name, "0").split(","):
            if not re.fullmatch(r"-?[0-9]{1,9}", value) or (name == "port" and int(value) > 65535):
                raise Refused(f"The address has a {name} that is not a number. Fix its variable.")


def _with_tls(made: Mapping[str, str], *, plaintext: bool) -> dict[str, str]:
    hosts = made["host"].split(",")
    if all(host.startswith("/") for host in hosts):
        # As in libpq, and asyncpg must not look for certificates either.
        rest = {name: value for name, value in made.items() if not name.startswith("ssl")}
        return {**rest, "sslmode": "disable"}
    remote = [] if plaintext else [host for host in hosts if not is_this_machine(host)]
    mode = made.get("sslmode") or ("require" if remote else "prefer")
    if mode not in _MODES:
        raise Refused(f"sslmode is one of {', '.join(_MODES)}, and the address has another.")
    if remote and mode not in TLS_MODES:
        raise Refused(
            f"sslmode={mode} would let passwords and data cross the network to {remote[0]} in "
            "plain text. Write sslmode=verify-full with sslrootcert (or require); plain text must "
            f"be allowed by the target: {ALLOW_PLAINTEXT} = true in airlock.toml."
        )
    if mode != "disable":
        _refuse_missing_files(made)
    return {**made, "sslmode": mode}


def _refuse_missing_files(made: Mapping[str, str]) -> None:
    if made.get("sslrootcert") == "system":
        raise Refused(
            "sslrootcert=system cannot be honoured: asyncpg and libpq before 16 do not know it. "
            "Name the file, as /etc/ssl/certs/ca-certificates.crt, with sslmode=verify-full."
        )
    for name in _FILES:
        if (path := made.get(name)) and not os.access(path, os.R_OK):
            raise Refused(f"{name} names {path}, which cannot be read. Fix the address.")
