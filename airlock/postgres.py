"""Connections, identifiers, and PostgreSQL's errors translated into ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from airlock import dsn, syntax
from airlock.dsn import without_password
from airlock.errors import LEDGER_REMEDY, AirlockError, Broken, Refused, Transient

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

# SQLSTATE classes and codes after which nothing has changed and the same call may succeed:
# connection lost, transaction ended for being idle, serialization failure and deadlock, resources,
# lock not available, server shutting down or starting.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
TRANSIENT_SQLSTATES = ("08", "25P03", "40001", "40P01", "53", "55P03", "57P")
# What the ledger answers when something else has changed it: tables, columns or a schema that are
# not there, and rules that its own rows break, such as numbers that are counted again.
_DAMAGE = ("42P01", "42703", "3F000", "23502", "23503", "23505", "23514")
REFUSED_SQLSTATES = ("28", "3D000", "42501", "0A000")

# What asyncpg raises when a call fails; InternalClientError where the server had ended a session
# that was idle.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

DETAIL = re.compile(r"⟨[^⟩]*⟩|\b(DETAIL|CONTEXT):.*")

# How long connecting may take, in seconds, where nothing else is said.
CONNECT_S = 10.0
# How long a call may wait for its answer, in seconds: one of the ledger, and all that is small; one
# that reads the whole catalogue, or waits for a checkpoint; one that reads or writes whole tables,
# which takes as long as a task may; and what tidies up after a cancellation.
CALL_S = 60.0
CATALOGUE_S = 600.0
TABLES_S = 6 * 3600.0
TIDY_S = 10.0

# What the server does about a client that vanished or stopped, so that its locks go in a minute; by
# the kernel's defaults that takes two hours. On a Unix socket the first four mean nothing. Between
# two statements of a transaction a runner does next to nothing, also where each is measured.
# https://www.postgresql.org/docs/current/runtime-config-connection.html
_IDLE = "idle_in_transaction_session_timeout"
WHEN_GONE = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
    _IDLE: "60000",
}

# The path of our own sessions, in which nothing is found that another role can make; without
# pg_temp at its end a temporary table would come first. Never a startup option: RESET in a
# migration would bring it back, and DEFAULT is what the role and the database give.
_OURS = "search_path = pg_catalog, pg_temp"
# The same around our own statements in a transaction of somebody else's, whose path comes back.
PIN = (
    "SELECT pg_catalog.set_config('airlock.path', pg_catalog.current_setting('search_path'), true);"
    f" SET LOCAL {_OURS};"
)
UNPIN = (
    "SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('airlock.path'), true);"
)
# And the other way round: for a moment what the role and the database give.
_AS_GIVEN = ("SET LOCAL search_path = DEFAULT", f"SET LOCAL {_OURS}")

_SQL = Path(__file__).parent / "sql"

quote_ident = syntax.quote_ident


def quote_literal(text: str) -> str:
    """A string constant, for the few places where a parameter is not allowed (DDL, SET)."""
    escaped = text.replace("'", "''")
    return f" E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{escaped}'"


_PARAMETER = re.compile(r"\$([0-9]+)")


def with_values(sql: str, *values: str | int) -> str:
    """The statement with its parameters ``$1`` … written in, to be sent together with others."""

    def literal(match: re.Match[str]) -> str:
        value = values[int(match[1]) - 1]
        return quote_literal(value) if isinstance(value, str) else str(value)

    return _PARAMETER.sub(literal, sql)


@cache
def query(name: str) -> str:
    """The SQL of ``airlock/sql/<name>.sql``."""
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def on_database(url: str, database: str) -> str:
    """The same server and login, with another database."""
    parts = urlsplit(url)
    said = [
        (name, text) for name, text in parse_qsl(parts.query) if name not in ("dbname", "database")
    ]
    return _with_query(url, said, path="/" + quote(database, safe=""))


def with_settings(url: str, settings: Mapping[str, str]) -> str:
    """The same address, whose sessions begin with these settings.

    They win over what is set for the role and the database, in our sessions and in libpq's tools.
    """
    parts = urlsplit(url)
    said = parse_qsl(parts.query)
    options = [text for name, text in said if name == "options"]
    options += [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
    kept = [(name, text) for name, text in said if name != "options"]
    return _with_query(url, [*kept, ("options", " ".join(options))])


def _escaped(value: str) -> str:
    # https://www.postgresql.org/docs/current/libpq-connect.html (options)
    return re.sub(r"([\\ ])", r"\\\1", value)


def _with_query(url: str, said: Sequence[tuple[str, str]], path: str | None = None) -> str:
    parts = urlsplit(url)
    text = urlencode(said, safe="/", quote_via=quote)
    made = urlunsplit((parts.scheme, parts.netloc, parts.path if path is None else path, text, ""))
    # urlunsplit drops the slashes of an empty host: a Unix socket named in the query.
    return made if "://" in made else made.replace(":", "://", 1)


class NoAnswer(asyncpg.InterfaceError):
    """The server was silent for too long, and the connection was given up."""


class Conn(_Connection):
    """A session in which no call waits for ever.

    A call without an answer may have been carried out. Its session cannot be used any more: every
    later call raises the same NoAnswer.
    """

    limit_s = CALL_S
    silence: str = ""


def _limited(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(call)
    async def limited(
        self: Conn, *args: object, timeout: float | None = None, **more: object
    ) -> object:
        if self.silence:
            raise NoAnswer(self.silence)
        limit_s = timeout or self.limit_s
        try:
            return await call(self, *args, timeout=limit_s, **more)
        except TimeoutError as error:
            self.terminate()
            self.silence = (
                f"no answer within {limit_s:g} s. Look at the server and at the network; whether "
                "it was carried out is read from the database by the next try"
            )
            raise NoAnswer(self.silence) from error
        except asyncio.CancelledError:
            # The driver asks the server to stop, and the next call waits until it has.
            self.limit_s = min(self.limit_s, TIDY_S)
            raise

    return limited


for _name in (
    "copy_from_query",
    "copy_from_table",
    "copy_to_table",
    "execute",
    "executemany",
    "fetch",
    "fetchrow",
    "fetchval",
):
    setattr(Conn, _name, _limited(getattr(Conn, _name)))


@contextmanager
def within(conn: Conn, limit_s: float) -> Generator[None]:
    """Calls of this block have so many seconds each."""
    before = conn.limit_s
    conn.limit_s = limit_s
    try:
        yield
    finally:
        # A cancellation in it has left less for tidying up.
        conn.limit_s = before if conn.limit_s == limit_s else min(before, conn.limit_s)


@asynccontextmanager
async def connect(
    url: str,
    *,
    purpose: str = "airlock",
    timeout_s: float | None = None,
    limit_s: float | None = None,
    pinned: bool = True,
) -> AsyncGenerator[Conn]:
    """One direct connection, closed afterwards.

    url: ``postgresql://user:password@host:port/database``; a Unix socket as ``?host=/folder``.
        airlock.dsn says what becomes of its parameters and of libpq's environment variables.
    purpose: shown in pg_stat_activity as application_name, "airlock" in front.
    timeout_s: for connecting; by default what the address says, or CONNECT_S.
    limit_s: for each call without a time of its own; CALL_S by default.
    pinned: names are looked up in pg_catalog only; not where SQL of somebody else's is run.
    Raises Transient when the server cannot be reached, Refused when it says no.
    """
    name = purpose if purpose.startswith("airlock") else f"airlock {purpose}"
    limit_s = CALL_S if limit_s is None else limit_s
    server_settings = {"application_name": name[:63], **WHEN_GONE}
    made = dsn.resolve(url, os.environ)
    if _IDLE in made.get("options", ""):
        # What an address says is meant: with_settings.
        del server_settings[_IDLE]
    with translated(f"connecting to {without_password(url)}"), _told_about_tls(made):
        conn = await asyncpg.connect(
            **dsn.for_asyncpg(made, server_settings),
            timeout=timeout_s or dsn.connect_timeout_s(made) or CONNECT_S,
            # Of cursors, and of the driver's own calls.
            command_timeout=limit_s,
            connection_class=Conn,
        )
    conn.limit_s = limit_s
    try:
        if pinned:
            with translated(f"connecting to {without_password(url)}"):
                await conn.execute(f"SET {_OURS}")
        yield conn
    finally:
        # A peer that is gone does not answer a polite goodbye.
        try:
            await conn.close(timeout=5)
        except (OSError, TimeoutError, *DRIVER_ERRORS):
            conn.terminate()


@contextmanager
def _told_about_tls(made: Mapping[str, str]) -> Generator[None]:
    """What to do about a server without TLS, or with another's certificate."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"The certificate of {made['host']} was not accepted: {error.verify_message}. Compare "
            "it with sslrootcert, and its names with the host in the address. Neither a password "
            "nor data was sent."
        ) from error
    except ConnectionError as error:
        # The driver raises the class itself for "no", but also where the server hangs up.
        if type(error) is not ConnectionError or not dsn.needs_tls(made):
            raise
        raise Transient(
            f"{made['host']} did not agree to TLS: {error}. Neither a password nor data was sent. "
            "If the server has no TLS, switch it on there (ssl = on), or allow plain text in the "
            f"target: {dsn.ALLOW_PLAINTEXT} = true."
        ) from error


@asynccontextmanager
async def pinned(conn: Conn) -> AsyncGenerator[None]:
    """Statements of our own in a session that runs others': in its transaction, or in one."""
    async with _looking_up(conn, PIN, UNPIN):
        yield


@asynccontextmanager
async def unpinned(conn: Conn) -> AsyncGenerator[None]:
    """Others' statements between our own, in a transaction that was pinned."""
    async with _looking_up(conn, UNPIN, PIN):
        yield


async def default_path(conn: Conn) -> tuple[str, ...]:
    """The schemas in which a migration looks names up, by what its role and database give."""
    async with _looking_up(conn, *_AS_GIVEN):
        return tuple(json.loads(await conn.fetchval(query("default_path"))))


async def meant(conn: Conn, *names: str) -> list[int | None]:
    """The OIDs of the relations that a migration means by these names; None where there is none."""
    async with _looking_up(conn, *_AS_GIVEN):
        return await named(conn, *names)


async def named(conn: Conn, *names: str) -> list[int | None]:
    """The same by the path of the session as it is, be it a migration's."""
    rows = await conn.fetch(query("named"), json.dumps(names))
    return [row["oid"] for row in rows]


@asynccontextmanager
async def _looking_up(conn: Conn, enter: str, leave: str) -> AsyncGenerator[None]:
    inside = conn.is_in_transaction()
    await conn.execute(enter if inside else f"BEGIN; {enter}")
    try:
        yield
    except BaseException:
        if not inside and not conn.is_closed():
            with suppress(*DRIVER_ERRORS):
                await conn.execute("ROLLBACK")
        raise
    await conn.execute(leave if inside else "COMMIT")


async def after(conn: Conn, statement: syntax.Statement) -> None:
    """Let the driver know of a statement of others that took its prepared ones away."""
    if statement.kind in ("DiscardStmt", "DeallocateStmt"):
        await conn.reload_schema_state()


async def stay_connected(conn: Conn) -> None:
    """Ask the server not to end this session for being idle, which it is while others work."""
    if conn.get_server_version().major >= 14:
        await conn.execute("SET idle_session_timeout = 0")


def sqlstate(error: BaseException) -> str:
    """The five-character SQLSTATE of an asyncpg error, or an empty string."""
    return str(getattr(error, "sqlstate", None) or "")


def is_transient(error: BaseException) -> bool:
    """Whether nothing changed and the same call may succeed later."""
    if isinstance(error, Transient | OSError | TimeoutError | asyncio.TimeoutError):
        return True
    if isinstance(error, asyncpg.ClientConfigurationError):
        return False
    # asyncpg raises InterfaceError with no SQLSTATE when the connection is gone.
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True
    return sqlstate(error).startswith(TRANSIENT_SQLSTATES)


def wording(error: BaseException) -> str:
    """What the server said, with its detail and its hint, on one line.

    The detail, which may quote a row, is between DETAIL's brackets, so that it can be left out.
    """
    parts = [getattr(error, name, None) for name in ("message", "detail", "hint")]
    if parts[0] is None:
        return str(error) or type(error).__name__
    said, detail, hint = parts
    quoted = f" ⟨{detail.replace('⟩', '>')}⟩" if detail else ""
    return f"{said}{quoted}" + (f" Hint: {hint}" if hint else "")


def without_details(text: str) -> str:
    """The text without what a server's errors may quote of a row, by ``wording`` or by itself."""
    return DETAIL.sub("⟨detail in the report⟩", text)


def translate(error: Exception, doing: str) -> AirlockError:
    """The error of ours that says what to do about one of asyncpg's."""
    if isinstance(error, AirlockError):
        return error
    message = f"{doing}: {wording(error)}"
    if _is_damage(error):
        message += f". {LEDGER_REMEDY}"
    if is_transient(error):
        return Transient(message)
    # Not Broken: an address that asyncpg cannot read has changed nothing.
    refused = isinstance(error, asyncpg.ClientConfigurationError)
    if refused or sqlstate(error).startswith(REFUSED_SQLSTATES):
        return Refused(message)
    return Broken(message)


def _is_damage(error: BaseException) -> bool:
    """Whether the ledger lacks something, or one of its rules stands in our own way."""
    ours = getattr(error, "schema_name", None) == "airlock" or '"airlock.' in str(error)
    return ours and sqlstate(error) in _DAMAGE


@contextmanager
def translated(doing: str) -> Generator[None]:
    """Errors of asyncpg and of the network leave this block as ours, ``doing`` in front."""
    try:
        yield
    except (*DRIVER_ERRORS, OSError, TimeoutError) as error:
        raise translate(error, doing) from error
