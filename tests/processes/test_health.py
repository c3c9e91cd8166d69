from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from airlock import health, record
from airlock.health import HealthVerdict
from airlock.request import Gate
from airlock.service import ending, table
from tests import own

from .conftest import Stage


async def test_a_well_instance_is_healthy_with_evidence_for_each_thing_looked_at(
    stage: Stage,
) -> None:
    stage.health["smoke"] = [{"path": "/deals?token=s3cret"}, {"path": "/none", "status": 404}]
    stage.health["frontend_url"] = f"http://127.0.0.1:{stage.port}/deals?key=s3cret"
    new = (await stage.restart("one")).new
    verdict = await health.check(stage.target, new)
    assert verdict.verdict == "healthy"
    assert verdict.first_bad is None
    names = [check.name.split()[0] for check in verdict.evidence]
    assert names == ["smoke", "smoke", "frontend", "bake", "health", "instance", "log"]
    assert all(check.ok for check in verdict.evidence)
    assert "s3cret" not in record.dump(verdict)
    assert record.load(HealthVerdict, record.dump(verdict)) == verdict


@pytest.mark.parametrize(
    ("behaviour", "options", "summary"),
    [
        ("flaps", {"bake_s": 60}, "and then badly: HTTP 503"),
        ("dies", {"bake_s": 60}, r"\(pid .*\) ended"),
        ("dies,slowly", {"bake_s": 60}, r"\(pid .*\) ended"),
        ("log_errors", {}, "1 new error lines.*the table deals has no column halted"),
        ("", {"smoke": [{"path": "/nowhere"}]}, "smoke GET /nowhere: HTTP 404 instead of 200"),
        ("", {"frontend_url": "http://127.0.0.1:{port}/gone"}, "frontend .*: HTTP 404"),
        ("", {"frontend_url": "http://127.0.0.1:{closed}/"}, "frontend .*: connection refused"),
    ],
)
async def test_what_is_certainly_wrong_is_unhealthy_at_once(
    stage: Stage, behaviour: str, options: dict[str, object], summary: str
) -> None:
    with own.port() as closed:
        places = {"{port}": str(stage.port), "{closed}": str(closed)}
        for name, value in options.items():
            for mark, port in places.items():
                value = value.replace(mark, port) if isinstance(value, str) else value  # noqa: PLW2901
            stage.health[name] = value
        new = (await stage.restart("one", behaviour)).new
        checking = asyncio.create_task(health.check(stage.target, new))
        if behaviour.startswith("dies"):
            await stage.until_asked(2)
            os.kill(new.pid, signal.SIGUSR1)
        verdict = await checking
    assert verdict.verdict == "unhealthy"
    assert re.search(summary, verdict.summary, re.DOTALL), verdict.summary
    assert verdict.first_bad
    assert verdict.seconds < stage.target.health.deadline_s / 2


@pytest.mark.parametrize(
    ("gate", "behaviour", "options"),
    [
        ("log_errors", "log_errors", {}),
        ("smoke", "", {"smoke": [{"path": "/nowhere"}]}),
        ("bake", "", {"bake_s": 60}),
    ],
)
async def test_a_check_that_was_left_out_finds_nothing_and_is_not_called_good(
    stage: Stage, gate: Gate, behaviour: str, options: dict[str, object]
) -> None:
    stage.health.update(options)
    new = (await stage.restart("one", behaviour)).new
    verdict = await health.check(stage.target, new, skip=(gate,))
    assert verdict.verdict == "healthy", verdict.summary
    left_out = [check.name for check in verdict.evidence if check.detail == "left out on request"]
    assert left_out == [gate.removesuffix("_errors")]
    assert [check.ok for check in verdict.evidence if check.name in left_out] == [None]


async def test_a_service_that_booted_and_is_unhealthy_now_is_found_in_a_few_probes(
    stage: Stage,
) -> None:
    new = (await stage.restart("one")).new
    (stage.folder / "app" / "SICK").touch()
    verdict = await health.check(stage.target, new)
    assert verdict.verdict == "unhealthy"
    assert "answered badly 3 times in a row: HTTP 503" in verdict.summary


async def test_a_service_that_turns_sick_while_it_bakes_is_unhealthy(stage: Stage) -> None:
    stage.health["bake_s"] = 60
    new = (await stage.restart("one")).new
    checking = asyncio.create_task(health.check(stage.target, new))
    await stage.until_asked(5)
    (stage.folder / "app" / "SICK").touch()
    verdict = await checking
    assert verdict.verdict == "unhealthy"
    assert "and then badly: HTTP 503" in verdict.summary


async def test_good_answers_of_another_instance_do_not_count(stage: Stage) -> None:
    stage.health["deadline_s"] = 0.6
    old = (await stage.restart("one")).new
    new = (await stage.restart("two")).new
    verdict = await health.check(stage.target, old)
    assert "ended" in verdict.summary
    assert new.is_alive
    sleeping = table.read(os.getpid())
    assert sleeping is not None
    impostor = type(new)(
        pid=sleeping.pid,
        create_time=sleeping.create_time,
        boot_id=new.boot_id,
        token="three",
        release="v3",
        started_at=new.started_at,
        directory=new.directory,
    )
    verdict = await health.check(stage.target, impostor)
    assert verdict.verdict == "unhealthy"
    assert "only another instance answered" in verdict.summary
    assert not verdict.is_healthy


async def test_an_answer_without_a_name_is_attributed_by_who_accepted_it(stage: Stage) -> None:
    new = (await stage.restart("one", "mute")).new
    verdict = await health.check(stage.target, new)
    assert verdict.is_healthy
    assert any("accepted by its own process" in check.detail for check in verdict.evidence)


async def test_silence_from_the_start_is_inconclusive(stage: Stage) -> None:
    stage.health |= {"deadline_s": 0.8, "timeout_s": 0.2, "url": "http://name.invalid/health"}
    new = (await stage.restart("one")).new
    verdict = await health.check(stage.target, new)
    assert verdict.verdict == "inconclusive"
    assert "without an answer" in verdict.summary


async def test_silence_after_good_answers_is_unhealthy(stage: Stage) -> None:
    stage.health |= {"bake_s": 60, "timeout_s": 0.3}
    new = (await stage.restart("one")).new
    checking = asyncio.create_task(health.check(stage.target, new))
    await stage.until_asked(5)
    os.kill(new.pid, signal.SIGSTOP)
    try:
        verdict = await checking
    finally:
        os.kill(new.pid, signal.SIGCONT)
    assert verdict.verdict == "unhealthy"
    assert "not at all" in verdict.summary


async def test_only_log_lines_after_the_start_count(stage: Stage) -> None:
    file = stage.folder / "app.log"
    file.write_text("2026-01-01 ERROR long ago\n")
    stage.health["log_file"] = file
    new = (await stage.restart("one")).new
    assert (await health.check(stage.target, new)).is_healthy
    with file.open("a") as log:
        log.write("2026-01-02 ERROR now\n")
    assert (await health.check(stage.target, new)).verdict == "unhealthy"
    stage.health["max_log_errors"] = 1
    assert (await health.check(stage.target, new)).is_healthy


async def test_without_a_service_nothing_is_checked_and_the_evidence_says_so(stage: Stage) -> None:
    target = stage.target.model_copy(update={"service": None})
    verdict = await health.check(target, None)
    assert verdict.is_healthy
    assert [check.ok for check in verdict.evidence] == [None]


async def test_nothing_that_was_ended_still_runs(stage: Stage) -> None:
    new = (await stage.restart("one", "forks")).new
    members = ending.family(new)
    assert len(members) == 2
    await ending.stop(new, 0.2)
    assert [table.read(member.pid) for member in members if table.read(member.pid)] == [] or all(
        not found.is_alive for member in members if (found := table.read(member.pid)) is not None
    )
