"""Releases that are bad in one way each, and an old one that does not come back either."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.faults.injector import Kind
from tests.faults.theatre import Case, Theatre
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.stage import HEALTH, UNWELL

_ASKED = "    global asked\n    asked += 1\n"
_DEAF = """\
    signals = __import__("signal")
    signals.signal(signals.SIGTERM, signals.SIG_IGN)
"""
_FORKS = """\
    if asked == 1 and os.fork() == 0:
        __import__("time").sleep(600)
"""
_ANSWERS_AS = 'instance=os.environ.get("AIRLOCK_INSTANCE", "")'

# As in the stage: file, text, replacement.
RELEASES = {
    "wrong-instance": ("start_server.py", _ANSWERS_AS, 'instance="deploy-0-forward"'),
    "dies": ("routes.py", HEALTH, f"{_ASKED}    if asked > 3:\n        os._exit(9)\n{HEALTH}"),
    "deaf": ("routes.py", HEALTH, f"{_DEAF}{UNWELL}{HEALTH}"),
    "forks": ("routes.py", HEALTH, f"{_ASKED}{_FORKS}{UNWELL}{HEALTH}"),
}
# What a person sees, and the release that does it.
_SEEN = {
    "the service is never ready": "never-ready",
    "the service ends at once": "exits",
    "the service answers as another instance": "wrong-instance",
    "the service flaps": "flapping",
    "the service is healthy and then dead": "dies",
    "the service finds its port taken": "port-taken",
    "the service ignores TERM": "deaf",
    "the service forks children": "forks",
}


def cases() -> Iterator[Case]:
    """All go back, but for the last, which needs a person."""
    for fault, release in _SEEN.items():
        where = "forwards, restart_service or check_health"
        yield Case(
            name=f"{fault} / {release}",
            fault=fault,
            where=where,
            play=partial(_deploy, release),
            ends=frozenset({"rolled_back"}),
        )
    for kind, fault in (("kill", "SIGKILL of the flow"), ("term", "SIGTERM")):
        yield Case(
            name=f"{fault} / forwards / rehearse: a release runs on the clone",
            fault=fault,
            where="forwards, rehearse",
            play=partial(_while_tried, kind),
            ends=frozenset({"failed"}),
        )
    yield Case(
        name="the old release is unhealthy as well / rollback",
        fault="the old release is unhealthy as well",
        where="during rollback, roll_back",
        play=_no_way_back,
        ends=frozenset({"rolled_back"}),
    )


async def _deploy(release: str, theatre: Theatre) -> None:
    # Only where nothing comes up ever is it waited for as long as that.
    if release == "never-ready":
        theatre.stage.change(f"ready_s = {PATIENCE_S}", "ready_s = 3")
    await theatre.deploy(release)


async def _while_tried(kind: Kind, theatre: Theatre) -> None:
    theatre.stage.try_releases()
    await theatre.deploy("v2", theatre.fault(kind, "rehearse: a release runs on the clone"))


async def _no_way_back(theatre: Theatre) -> None:
    """It strands with one page and no loop; a person mends the release, and rolls back."""
    fault = theatre.fault("wait", "going_back: before rolling_back")
    child = await theatre.start("deploy", fault, release="unhealthy")
    await theatre.reached(fault, child)
    old = [
        path
        for path in theatre.stage.target.service_dir.glob("releases/*/routes.py")
        if (path.parent / "RELEASE").read_text() == "v1"
    ]
    well = old[0].read_text(encoding="utf-8")
    old[0].write_text(f"{well}\nraise SystemExit('no licence')\n", encoding="utf-8")
    theatre.go(fault)
    await child.wait()
    # Nothing that looks for dead runners may try again.
    await theatre.recover()
    async with connect(theatre.stage.superuser_url) as conn:
        pages = await conn.fetchval(
            "SELECT count(*) FROM airlock.alert WHERE body->>'state' = 'stranded'"
        )
    assert pages == 1, f"{pages} pages for one stranded deploy"
    assert (await theatre.stage.last()).state == "stranded", "it was not stranded"
    old[0].write_text(well, encoding="utf-8")
    again = await theatre.start("rollback", reason="mended")
    assert await again.wait() == 0, "the rollback by hand did not end well"
