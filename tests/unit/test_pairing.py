"""What a release is started with for the clone, and what its answers there prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlock.errors import Refused
from airlock.pairing import Cast, Endpoint, NotTried, Pair, Tried, candidates, judged
from airlock.pairing.environment import REHEARSAL, Door, led_to_clone
from airlock.service import Instance, Release

PRODUCTION = "postgresql://tracker:s3cr%40t@db.example:6432/tracker"
SCRATCH = Door(database="tracker", port=4321)
CLONE = "127.0.0.1:4321/tracker"
DEV = Door(
    database="tracker",
    url="postgresql://dev:dev@dev.example/airlock_prod_rehearsal-7?sslmode=require&allow_plaintext=true&options=-c%20role%3Downer",
)


def led(given: dict[str, str], door: Door = SCRATCH, name: str = "DATABASE_URL") -> dict[str, str]:
    return led_to_clone(given, name=name, production=(PRODUCTION,), door=door)


LED = {
    "the role stays, and a password is there for programs that insist": (
        PRODUCTION,
        f"postgresql://tracker:rehearsal@{CLONE}",
    ),
    "another role, which has privileges of its own": (
        "postgresql://reader@db.example:6432/tracker",
        f"postgresql://reader@{CLONE}",
    ),
    "what is about connecting goes, what the service means stays": (
        "postgres://t@db.example/tracker?sslmode=verify-full&sslrootcert=/ca&options=-csearch_path%3Dx",
        f"postgres://t@{CLONE}?options=-csearch_path%3Dx",
    ),
    "a driver's own scheme": (
        "postgresql+asyncpg://t:p@db.example/tracker",
        f"postgresql+asyncpg://t:rehearsal@{CLONE}",
    ),
    "a socket folder": ("postgresql://t@/tracker?host=/run/postgresql", f"postgresql://t@{CLONE}"),
    "several hosts": (
        "postgresql://t@a.example:1,b.example:2/tracker?target_session_attrs=primary",
        f"postgresql://t@{CLONE}",
    ),
}


@pytest.mark.parametrize(("url", "clone"), LED.values(), ids=LED.keys())
def test_the_services_database_is_replaced_by_the_clone(url: str, clone: str):
    assert led({"DATABASE_URL": url}) == {"DATABASE_URL": clone, REHEARSAL: "1"}


def test_on_a_dev_server_its_own_login_works_as_the_services_role():
    found = led({"DATABASE_URL": PRODUCTION}, DEV)["DATABASE_URL"]
    assert found == (
        "postgresql://dev:dev@dev.example/airlock_prod_rehearsal-7?sslmode=require"
        "&options=-c%20role%3Downer%20-c%20role%3Dtracker"
    )


def test_every_other_way_to_the_same_database_is_replaced_as_well():
    given = {
        "DATABASE_URL": PRODUCTION,
        "READ_URL": "postgresql://reader@replica.example/tracker",
        "QUEUE_URL": "postgresql://q@queue.example/jobs",
        "REDIS_URL": "redis://127.0.0.1:6379",
        "PGHOST": "db.example",
        "PGHOSTADDR": "10.0.0.5",
        "PGPASSFILE": "/srv/.pgpass",
        "PGAPPNAME": "tracker",
    }
    assert led(given) == {
        "DATABASE_URL": f"postgresql://tracker:rehearsal@{CLONE}",
        "READ_URL": f"postgresql://reader@{CLONE}",
        "QUEUE_URL": given["QUEUE_URL"],
        "REDIS_URL": given["REDIS_URL"],
        "PGHOST": "127.0.0.1",
        "PGPORT": "4321",
        "PGDATABASE": "tracker",
        "PGUSER": "tracker",
        "PGPASSWORD": "rehearsal",
        "PGAPPNAME": "tracker",
        REHEARSAL: "1",
    }


NOT_TRIED = {
    "no variable": ({}, "given no PostgreSQL URL in DATABASE_URL"),
    "no URL in it": ({"DATABASE_URL": "db.example"}, "given no PostgreSQL URL in DATABASE_URL"),
    "another database": (
        {"DATABASE_URL": "postgresql://t@db.example/other"},
        "leads to the database 'other', and the deploy is about 'tracker'",
    ),
    "the server's name": ({"DB_HOST": "db.example"}, "DB_HOST may lead to production"),
    "a connection string": ({"DSN": "host=10.0.0.5 dbname=tracker"}, "DSN may lead to production"),
    "a JDBC address": ({"J": "jdbc:postgresql://10.0.0.5/tracker"}, "J may lead to production"),
    "another database there": (
        {"JOBS_URL": "postgresql://t@db.example:6432/jobs"},
        "JOBS_URL may lead to production",
    ),
    "the password": ({"DB_PASSWORD": "s3cr@t"}, "DB_PASSWORD may lead to production"),
}


@pytest.mark.parametrize(
    ("text", "leads"),
    [
        ("tcp://localhost:6432", True),
        ("http://[::1]:6432/x", True),
        ("127.0.0.1:64321", False),
        ("redis://localhost:6379", False),
        ("10.127.0.0.1:6432", False),
    ],
)
def test_on_this_machine_the_port_tells_production_from_others(text: str, leads: bool):
    given = {"DATABASE_URL": "postgresql://t@127.0.0.1:6432/tracker", "OTHER": text}
    if leads:
        with pytest.raises(NotTried, match="OTHER"):
            led(given)
    else:
        assert led(given)["OTHER"] == text


@pytest.mark.parametrize(("given", "said"), NOT_TRIED.values(), ids=NOT_TRIED.keys())
def test_where_a_variable_may_lead_to_production_nothing_is_started(given, said):
    base = {} if given.keys() <= {"DATABASE_URL"} else {"DATABASE_URL": PRODUCTION}
    with pytest.raises(NotTried, match=said) as refusal:
        led(base | given)
    assert "s3cr" not in str(refusal.value)


# ---------------------------------------------------------------- what it proves


def pair(which, schema, *bad: str, failure: str = "", **more) -> Pair:
    asked = [
        Endpoint(
            name=each, ok=each not in bad, detail="HTTP 500: no" if each in bad else "HTTP 200"
        )
        for each in ("GET /a", "GET /b")
    ]
    endpoints = () if failure else tuple(asked)
    ready_s = None if failure else 0.5
    return Pair(
        which=which,
        release={"running": "v1"}.get(which, "v2"),
        schema=schema,
        ready_s=ready_s,
        endpoints=endpoints,
        failure=failure,
        **more,
    )


WELL = pair("running", "before")

BREAKS = {
    "an endpoint": (pair("running", "after", "GET /a"), WELL, "running release v1 fails: GET /a"),
    "a release that does not come up": (
        pair("new", "after", failure="it ended"),
        WELL,
        "new release v2 fails: it ended. What runs now works there",
    ),
    "an error in the log": (
        pair("running", "expanded", log_error="ERROR no column"),
        WELL,
        "after the expand of 011, the running release v1 fails: its log has an error: ERROR no",
    ),
    "one endpoint more than before": (
        pair("running", "after", "GET /a", "GET /b"),
        pair("running", "before", "GET /a"),
        "fails: GET /b answered HTTP 500: no. On the schema from before",
    ),
    "one folder for both": (
        pair("running and new", "after", "GET /a"),
        pair("running and new", "before"),
        "the running and new release v2 fails: GET /a",
    ),
}


@pytest.mark.parametrize(("found", "before", "said"), BREAKS.values(), ids=BREAKS.keys())
def test_what_worked_on_the_old_schema_and_fails_on_the_new_one_is_refused(found, before, said):
    with pytest.raises(Refused, match=said):
        judged([found, before], "011", changes=True)


PROVES = {
    "all is well": (pair("running", "after"), WELL, "works"),
    "it fails before as well": (
        pair("running", "after", "GET /a"),
        pair("running", "before", "GET /a"),
        "not proved",
    ),
    "it does not come up here at all": (
        pair("new", "after", "GET /a"),
        pair("running", "before", failure="no Redis"),
        "not proved",
    ),
    "it does not use the clone": (
        pair("running", "after", "GET /a", is_connected=False),
        pair("running", "before", is_connected=False),
        "not proved",
    ),
    "nothing is known of before": (pair("new", "after", "GET /a"), None, "not proved"),
    "the new release on the old schema is only reported": (
        pair("new", "before", "GET /a"),
        WELL,
        "fails",
    ),
}


@pytest.mark.parametrize(("found", "before", "verdict"), PROVES.values(), ids=PROVES.keys())
def test_what_does_not_blame_the_change_is_reported(found, before, verdict):
    pairs = [found, before] if before else [found]
    assert judged(pairs, "011", changes=True)[0].verdict == verdict


def test_without_migrations_the_running_release_says_what_can_be_expected_here():
    found = [pair("running", "after", "GET /a"), pair("new", "after", "GET /a", "GET /b")]
    with pytest.raises(Refused, match="on production's schema, the new release v2 fails: GET /b"):
        judged(found, "", changes=False)


def test_a_release_has_met_the_new_schema_as_its_worst_pair_says():
    works, fails = pair("new", "after", verdict="works"), pair("new", "expanded", "GET /a")
    tried = Tried(pairs=(works, fails, pair("new", "before", verdict="works")))
    assert (tried.met("new"), tried.met("running")) == (fails, None)


def instance(folder: Path) -> Instance:
    return Instance(
        pid=1,
        create_time=1,
        boot_id="b",
        token="t",
        release="v1",
        started_at=None,  # type: ignore[arg-type]
        directory=folder,
    )


def test_releases_in_one_folder_are_one_and_a_folder_that_is_gone_is_none(tmp_path: Path):
    new = Release(ref="v2", commit="c", directory=tmp_path)
    both = list(candidates(Cast(running=instance(tmp_path), new=new)))
    assert [each.which for each in both] == ["running and new"]
    gone = list(candidates(Cast(running=instance(tmp_path / "gone"), new=new)))
    assert [each.which for each in gone] == ["new"]
