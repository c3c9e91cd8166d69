"""One table of connection parameters: what asyncpg and PostgreSQL's programs are given."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlock import dsn
from airlock.binaries import WHEEL
from airlock.errors import Refused

REMOTE = "postgresql://owner:s3cret%20word@db.example:6543/tracker"
HERE = "postgresql://owner@127.0.0.1/tracker"
PASSED = [each for each in dsn.PARAMETERS if each.fate == "passed"]
IGNORED = [each for each in dsn.PARAMETERS if each.fate == "ignored"]
REFUSED = [each for each in dsn.PARAMETERS if each.fate == "refused"]


def _name(parameter: dsn.Parameter) -> str:
    return parameter.name or parameter.variable


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.touch()
    return str(path)


def _sample(name: str, file: str) -> str:
    """A value of the parameter that is not its default."""
    values = {
        "host": "10.0.0.7",
        "port": "6000",
        "sslmode": "verify-full",
        "connect_timeout": "7",
        "sslnegotiation": "direct",
    }
    is_file = name in ("sslrootcert", "sslcert", "sslkey", "sslcrl")
    return values.get(name) or (file if is_file else "said")


# ---------------------------------------------------------------- the table is whole


class _Option(ctypes.Structure):
    # https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNDEFAULTS
    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("keyword", "variable", "built", "value")),
        *((name, ctypes.c_char_p) for name in ("label", "shown")),
        ("width", ctypes.c_int),
    ]


def _libpqs() -> list[str]:
    found = ctypes.util.find_library("pq")
    # Not imported: it makes folders.
    spec = importlib.util.find_spec(WHEEL)
    folders = map(Path, (spec.submodule_search_locations or []) if spec else [])
    wheels = [each for folder in folders for each in folder.glob("pginstall*/lib/libpq.so.5")]
    return [*([found] if found else []), *map(str, sorted(wheels))]


def _options(library: str) -> Iterator[tuple[str, str]]:
    libpq = ctypes.CDLL(library)
    libpq.PQconndefaults.restype = ctypes.POINTER(_Option)
    for option in libpq.PQconndefaults():
        if option.keyword is None:
            return
        yield option.keyword.decode(), (option.variable or b"").decode()


@pytest.mark.parametrize("library", _libpqs())
def test_each_parameter_of_libpq_has_its_row_and_its_variable(library: str) -> None:
    rows = {(each.name, each.variable) for each in dsn.PARAMETERS}
    found = set(_options(library))
    assert len(found) > 30
    assert found - rows == set()


def test_each_row_says_why_and_none_is_there_twice() -> None:
    names = [each.name or each.variable for each in dsn.PARAMETERS]
    assert len(names) == len(set(names))
    assert all(each.why for each in dsn.PARAMETERS if each.fate != "passed")


# ---------------------------------------------------------------- passed, ignored, refused


@pytest.mark.parametrize("parameter", PASSED, ids=_name)
@pytest.mark.parametrize("place", ["address", "environment"])
def test_what_is_passed_reaches_asyncpg_and_the_programs_alike(
    parameter: dsn.Parameter, place: str, file: str
) -> None:
    value = _sample(parameter.name, file)
    if place == "address":
        made = dsn.resolve(f"postgresql://?{parameter.name}={value}&host=10.0.0.7", {})
    else:
        made = dsn.resolve("postgresql://", {"PGHOST": "10.0.0.7", parameter.variable: value})
    if place == "environment" and not parameter.is_read:
        assert parameter.name not in made
        return
    assert dsn.for_programs(made)[parameter.variable] == value
    arguments = dsn.for_asyncpg(made, {})
    if parameter.name == "connect_timeout":
        assert dsn.connect_timeout_s(made) == 7
    else:
        assert value in str(arguments).replace("%2F", "/")


@pytest.mark.parametrize("parameter", IGNORED, ids=_name)
def test_what_is_ignored_reaches_neither(parameter: dsn.Parameter) -> None:
    query = f"?{parameter.name}=said" if parameter.name else ""
    made = dsn.resolve(HERE + query, {parameter.variable: "said"} if parameter.variable else {})
    assert "said" not in made.values()
    assert "said" not in str(dsn.for_asyncpg(made, {}))


@pytest.mark.parametrize("parameter", REFUSED, ids=_name)
def test_what_would_weaken_if_ignored_is_refused_by_the_name_it_was_given(
    parameter: dsn.Parameter,
) -> None:
    with pytest.raises(Refused, match=f"^{parameter.name} cannot be honoured: ") as refused:
        dsn.resolve(f"{HERE}?{parameter.name}=said", {})
    assert parameter.why in str(refused.value)
    if parameter.variable:
        with pytest.raises(Refused, match=f"^{parameter.variable} cannot be honoured"):
            dsn.resolve(HERE, {parameter.variable: "said"})
    for harmless in parameter.unless:
        assert parameter.name not in dsn.resolve(f"{HERE}?{parameter.name}={harmless}", {}) or (
            parameter.name == "gssencmode"
        )


def test_an_unknown_parameter_is_refused_with_how_a_setting_is_written() -> None:
    with pytest.raises(Refused, match="options=-cwork_mem%3DVALUE"):
        dsn.resolve(f"{HERE}?work_mem=1GB", {})


def test_the_address_wins_over_the_environment() -> None:
    environ = {"PGHOST": "10.0.0.8", "PGPORT": "1", "PGUSER": "x", "PGDATABASE": "x"}
    made = dsn.resolve(REMOTE, environ | {"PGPASSWORD": "x", "PGCHANNELBINDING": ""})
    assert dsn.for_programs(made) == {
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "owner",
        "PGPASSWORD": "s3cret word",
        "PGDATABASE": "tracker",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "disable",
    }


# ---------------------------------------------------------------- forms of addresses

FORMS = {
    "postgres://a@127.0.0.1/x": {"user": "a", "dbname": "x"},
    "postgresql+asyncpg://a@127.0.0.1/x": {"user": "a", "dbname": "x"},
    "postgresql+psycopg2://a@/x?host=/run/pg&port=5433": {"host": "/run/pg", "port": "5433"},
    "postgresql://a@%2Frun%2FPg/x": {"host": "/run/Pg", "port": "5432"},
    "postgresql://a@h1:1,[::1]:2,h3/x": {"host": "h1,::1,h3", "port": "1,2,5432"},
    "postgresql://a@h1,h2/x?port=7": {"host": "h1,h2", "port": "7,7"},
    "postgresql://a:p@ss@h/x": {"user": "a", "password": "p@ss", "host": "h"},
    "postgresql://h/x?user=b&database=y": {"user": "b", "dbname": "y"},
    "postgresql://a@h/?ssl=true": {"dbname": "a", "sslmode": "require"},
    "postgresql://a@127.0.0.1/x?ssl=false": {"sslmode": "disable"},
    "postgresql://a@h/x?ssl=verify-ca": {"sslmode": "verify-ca"},
    "postgresql://a@h/x?sslmode=no-verify": {"sslmode": "require"},
    "postgresql://a@h/x?sslmode=prefer&sslaccept=strict": {"sslmode": "verify-full"},
    "postgresql://a@h/x?sslmode=require&sslaccept=accept_invalid_certs": {"sslmode": "require"},
    "postgresql://a@h/x?schema=public&connection_limit=5&pgbouncer=false": {"dbname": "x"},
    "postgresql://a@h/x?allow_plaintext=true": {"sslmode": "prefer"},
    "postgresql://a@h/x?allow_plaintext=true&sslmode=verify-full": {"sslmode": "verify-full"},
}


@pytest.mark.parametrize(("url", "expected"), FORMS.items(), ids=FORMS)
def test_each_form_of_an_address_is_understood(url: str, expected: dict[str, str]) -> None:
    assert expected.items() <= dsn.resolve(url, {}).items()


def test_prismas_sslcert_is_the_authoritys(file: str) -> None:
    made = dsn.resolve(f"{REMOTE}?sslaccept=strict&sslcert={file}", {})
    assert (made["sslrootcert"], "sslcert" in made) == (file, False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://x/y", "postgresql://user"),
        ("tracker", "postgresql://user"),
        ("jdbc:postgresql://h/x", "postgresql://user"),
        ("host=h dbname=x", "postgresql://user"),
        ("postgresql://a:p@ss/w@h/x", "postgresql://user"),
        ("postgresql://a:p/ss@h/x", "postgresql://user"),
        ("postgresql://h1,h2,h3/x?port=1,2", "3 hosts and 2 ports"),
        ("postgresql://h/x?port=ssh", "port that is not a number"),
        ("postgresql://h/x?connect_timeout=soon", "connect_timeout that is not a number"),
        ("postgresql://h/x?sslmode=Require", "sslmode is one of disable"),
        ("postgresql://h/x?sslrootcert=system", "ca-certificates.crt"),
        ("postgresql://h/x?sslrootcert=/no/such.crt", "sslrootcert names /no/such.crt"),
        ("postgresql://h/x?sslcrl=/no/such.crl", "sslcrl names /no/such.crl"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        dsn.resolve(url, {})
    assert "ss@" not in str(refused.value)


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        ("127.0.0.1", "prefer"),
        ("127.8.8.8", "prefer"),
        ("[::1]", "prefer"),
        ("localhost", "prefer"),
        ("LOCALHOST", "prefer"),
        ("%2Frun%2Fpostgresql", "disable"),
        ("10.0.0.7", "require"),
        ("192.168.1.1", "require"),
        ("0.0.0.0", "require"),  # noqa: S104 - an address to connect to
        ("db.example", "require"),
        ("localhost.example", "require"),
        ("127.0.0.1,10.0.0.7", "require"),
        ("%2Frun%2Fpostgresql,10.0.0.7", "require"),
    ],
)
def test_tls_is_asked_for_wherever_a_host_is_not_this_machine(host: str, mode: str) -> None:
    made = dsn.resolve(f"postgresql://owner@{host}/x", {})
    assert made["sslmode"] == mode
    assert dsn.needs_tls(made) == (mode == "require")


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_mode_that_may_be_plain_text_needs_the_targets_word(mode: str) -> None:
    with pytest.raises(Refused, match=f"sslmode={mode} .* allow_plaintext = true"):
        dsn.resolve(REMOTE, {"PGSSLMODE": mode})
    allowed = dsn.of_target(REMOTE, "prod", allow_plaintext=True)
    assert dsn.resolve(allowed, {"PGSSLMODE": mode})["sslmode"] == mode


def test_a_socket_asks_for_no_certificates_whatever_the_environment_says() -> None:
    environ = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/no/such.crt"}
    made = dsn.resolve("postgresql://owner@/x?host=/run/pg", environ)
    assert [made[name] for name in made if name.startswith("ssl")] == ["disable"]


@pytest.mark.parametrize("name", ["allow_plaintext", "allow%5Fplaintext"])
def test_an_address_cannot_allow_plain_text_to_itself(name: str) -> None:
    url = f"{REMOTE}?{name}=true"
    with pytest.raises(Refused, match=r"allow_plaintext = true in \[targets.prod\]"):
        dsn.of_target(url, "prod", allow_plaintext=False)
