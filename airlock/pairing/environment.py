"""What a service is started with so that it works on the clone, and cannot reach production."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from airlock.dsn import without_marks
from airlock.pairing import NotTried
from airlock.postgres import with_settings

REHEARSAL = "AIRLOCK_REHEARSAL"
_SWITCH = "or set clone.try_releases = false"
_SCHEME = re.compile(r"postgres(ql)?(\+\w+)?")
# Addresses in other forms, of which nobody here knows where they lead.
_OTHER_FORM = re.compile(r"\bjdbc:postgresql:|\bdbname\s*=")
# What says how to connect, beside what the service itself means; the clone has its own.
_CONNECTION = re.compile(
    r"host|hostaddr|port|user|password|dbname|database|service|passfile|target_session_attrs"
    r"|load_balance_hosts|channel_binding|require_auth|(ssl|gss|krb).*"
)
# https://www.postgresql.org/docs/current/libpq-envars.html
_LIBPQ = re.compile(
    r"PG(HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|SSL.*|GSS.*"
    r"|REQUIRE.*|CHANNELBINDING|TARGETSESSIONATTRS|LOADBALANCEHOSTS)"
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
# A shorter password stands in many values by chance.
_TELLING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A PostgreSQL URL, taken apart. hosts: names or socket folders, each with its port."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str
    password: str
    meant: tuple[tuple[str, str], ...]  # the parameters that are not about connecting


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the clone is, for a service.

    port: of the loopback address that leads to it, where any role is let in.
    url: of a database on a dev server, which is used with its own login, as the service's role.
    """

    database: str
    port: int | None = None
    url: str = ""


def address(text: str) -> Address | None:
    """The URL taken apart; None where the text is no URL of PostgreSQL."""
    try:
        parts = urlsplit(text.strip())
        if not _SCHEME.fullmatch(parts.scheme):
            return None
        said = parse_qsl(parts.query)
        query = dict(said)
        hosts = tuple(_hosts(query.get("host") or parts.netloc.rpartition("@")[2], query))
    except ValueError:
        return None
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    path = unquote(parts.path.removeprefix("/"))
    return Address(
        scheme=parts.scheme,
        hosts=hosts,
        database=query.get("dbname") or query.get("database") or path,
        user=unquote(user) or query.get("user", ""),
        password=unquote(password) or query.get("password", ""),
        meant=tuple((name, value) for name, value in said if not _CONNECTION.fullmatch(name)),
    )


def _hosts(text: str, query: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for each in unquote(text).split(","):
        if each.startswith("/"):
            yield each, int(query.get("port") or 5432)
            continue
        parts = urlsplit(f"//{each}")
        yield parts.hostname or "", parts.port or int(query.get("port") or 5432)


def led_to_clone(
    given: Mapping[str, str], *, name: str, production: Collection[str], door: Door
) -> dict[str, str]:
    """The service's own variables, with production's database replaced by the clone in each.

    name: the variable in which the service finds its database.
    production: the URLs by which Airlock knows the database.
    Raises NotTried when it cannot be said that none leads to production any more.
    """
    own = address(given.get(name, ""))
    if own is None:
        raise NotTried(
            f"the service is given no PostgreSQL URL in {name}, so it cannot be led to the clone. "
            f"Name its variable in service.database_env, and in service.env, {_SWITCH}"
        )
    if own.database != door.database:
        raise NotTried(
            f"{name} leads to the database {own.database!r}, and the deploy is about "
            f"{door.database!r}"
        )
    known = [own, *filter(None, map(address, production))]
    made = dict(_led(given, name, known, door))
    if any(map(_LIBPQ.fullmatch, given)):
        made |= _libpq(made[name])
    return made | {REHEARSAL: "1"}


def _led(
    given: Mapping[str, str], name: str, known: list[Address], door: Door
) -> Iterator[tuple[str, str]]:
    databases = {each.database for each in known}
    for variable, text in given.items():
        found = address(text)
        if _LIBPQ.fullmatch(variable):
            continue
        if variable == name or (found and found.database in databases):
            assert found  # noqa: S101 - for the type checker; name was looked at before
            yield variable, _through(found, door)
        elif _may_lead(text, known):
            raise NotTried(
                f"{variable} may lead to production's database, and in its form it cannot be "
                f"replaced. Give the service one URL in {name} instead, {_SWITCH}"
            )
        else:
            yield variable, text


def _may_lead(text: str, known: list[Address]) -> bool:
    if _OTHER_FORM.search(text):
        return True
    return any(_names(text, each) for each in known)


def _names(text: str, known: Address) -> bool:
    if len(known.password) >= _TELLING and known.password in text:
        return True
    for host, port in known.hosts:
        if host not in _LOOPBACK and re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", text):
            return True
        names = "|".join(map(re.escape, _LOOPBACK if host in _LOOPBACK else (host,)))
        if re.search(rf"(?<![\w.:-])\[?({names})\]?:{port}(?!\d)", text):
            return True
    return False


def _through(found: Address, door: Door) -> str:
    """The clone's URL in the form of this one."""
    if door.port is None:
        parts = urlsplit(door.url)
        query = urlencode(
            [*without_marks(parse_qsl(parts.query)), *found.meant], safe="/", quote_via=quote
        )
        made = urlunsplit(("postgresql", parts.netloc, parts.path, query, ""))
        made = made if "://" in made else made.replace(":", "://", 1)
        made = with_settings(made, {"role": found.user}) if found.user else made
        return f"{found.scheme}{made.removeprefix('postgresql')}"
    # Nobody asks for the password there; a program may insist that there is one.
    login = quote(found.user, safe="") + (":rehearsal" if found.password else "")
    query = urlencode(found.meant, safe="/", quote_via=quote)
    where = f"{login}{'@' if login else ''}127.0.0.1:{door.port}/{quote(door.database, safe='')}"
    return f"{found.scheme}://{where}{'?' if query else ''}{query}"


def _libpq(url: str) -> dict[str, str]:
    found = address(url)
    assert found  # noqa: S101 - for the type checker; it was made above
    said = {
        "PGHOST": ",".join(host for host, _ in found.hosts),
        "PGPORT": ",".join(str(port) for _, port in found.hosts),
        "PGDATABASE": found.database,
        "PGUSER": found.user,
        "PGPASSWORD": found.password,
    }
    return {name: value for name, value in said.items() if value}
