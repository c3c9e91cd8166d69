"""The three ways in which Airlock is used, from Prefect's UI in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import httpx
import psutil
import pytest
from playwright.async_api import expect

from flows.runtime import Runtime
from tests.browser.window import CHROMIUM, Window
from tests.patience import PATIENCE_S, until
from tests.people import connect
from tests.stage import Stage

# Until a scheduled refresh begins; the ones after it wait for it in staging's queue.
SECONDS = 15

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here; `apt-get install chromium` brings it"
)


async def test_a_deploy_is_started_approved_and_followed_to_its_end(
    window: Window, stage: Stage
) -> None:
    page = window.page
    await window.open_deployment("deploy", "prod")
    await window.open_form()
    assert await window.choices("Target") == ["prod", "staging"]
    await expect(page.get_by_role("tab", name="None")).to_have_count(0)
    await window.fill(Release="v2", Reason="trading halts", Your_name="Ada")
    await window.keep("1-form", whole=True)
    await window.submit()

    await window.reaches("Paused")
    run = page.url
    await window.keep("2-paused")
    await window.open_artifact("rehearsal-prod")
    await expect(window.main).to_contain_text("exact: schema and 1,620 rows came back")
    await expect(window.main).to_contain_text("public.trading_halts")
    await window.keep("3-rehearsal", whole=True)
    assert (await stage.health())["schema_version"] == 9

    await page.goto(run)
    await window.open_decision()
    await expect(window.decision).to_have_text("reject")
    await window.keep_decision("4-approval")
    await window.approve("Grace", "the way back is exact")

    await window.reaches("Deployed")
    await window.keep("5-deployed")
    health = await stage.health()
    assert (health["release"], health["schema_version"]) == ("v2", 10)
    await window.open_artifact("deploy-prod")
    await expect(window.main.get_by_role("heading", level=1)).to_contain_text("DEPLOYED")
    await expect(window.main).to_contain_text("Grace")
    picture = window.main.get_by_role("img").first
    await expect(picture).to_be_visible()
    assert await picture.evaluate("picture => picture.naturalWidth") > 0
    await window.keep("6-report", whole=True)


async def test_a_bad_release_comes_back_and_its_alert_leads_to_the_report(
    window: Window, stage: Stage, runtime: Runtime
) -> None:
    page = window.page
    before, served = await stage.world(), (await stage.health())["release"]
    stage.webhook.bodies.clear()
    stage.migration(
        11,
        "score",
        "ALTER TABLE deals ADD COLUMN score integer;",
        "ALTER TABLE deals DROP COLUMN score;",
    )
    # Form and question are clicked through in the test before; here they are answered over the API.
    async with runtime.client() as http:
        run = await start(http, release="unhealthy", reason="scores", requester="Ada")
        await reaches(http, run, "Paused")
        answer = {"decision": "approve", "name": "Grace", "reason": "looks harmless"}
        sent = await http.post(f"/flow_runs/{run}/resume", json={"run_input": answer})
        assert sent.raise_for_status().json()["status"] == "ACCEPT"
        await reaches(http, run, "RolledBack")

    await page.goto(f"/v2/runs/flow-run/{run}")
    await window.reaches("RolledBack")
    await window.is_drawn()
    await window.keep("7-rolled-back")
    after = await stage.world()
    assert after.catalogue.fingerprint == before.catalogue.fingerprint
    assert (await stage.health())["release"] == served
    await window.open_artifact("deploy-prod")
    await expect(window.main.get_by_role("heading", level=1)).to_contain_text("ROLLED BACK")
    await expect(window.main.get_by_role("img").first).to_be_visible()
    await window.keep("8-rollback-report", whole=True)

    told = stage.webhook.text
    assert "ROLLED BACK" in told
    # The links in alerts open the older UI.
    await page.goto(address_in(told))
    await window.reaches("RolledBack")
    await window.keep("9-where-the-alert-leads")


async def test_the_nightly_refresh_is_there_and_off_until_it_is_configured(window: Window) -> None:
    await window.open_deployment("refresh-staging", "nightly")
    await expect(window.main).to_contain_text("At 03:00 AM")
    schedule = window.page.get_by_role("complementary")
    await expect(schedule.get_by_role("switch")).not_to_be_checked()
    await window.keep("10-schedule")
    await schedule.get_by_role("button", name="Open menu").click()
    await window.page.get_by_role("menuitem", name="Edit").click()
    await expect(window.dialog).to_contain_text(re.compile(r"Europe\s*/\s*London"))
    await window.keep("11-time-zone")


async def test_a_schedule_that_a_person_switches_on_masks_staging(
    window: Window, stage: Stage, runtime: Runtime
) -> None:
    async with runtime.client() as http:
        await every_seconds(http, "refresh-staging/nightly", SECONDS)
        await window.open_deployment("refresh-staging", "nightly")
        await window.switch(on=True)
        await look_at_it_soon(http, "refresh-staging/nightly")
        run = await scheduled_run(http, "refresh-staging/nightly")
        await window.switch(on=False)
    await window.page.goto(f"/v2/runs/flow-run/{run}")
    await window.reaches("Refreshed")
    await window.keep("12-refreshed")
    async with connect(os.environ["STAGING_DATABASE_URL"]) as conn:
        copied = "SELECT count(*) FROM deal_research WHERE title LIKE 'Note %'"
        assert await conn.fetchval(copied) == 0
        assert await conn.fetchval("SELECT count(*) FROM deals") > 0
    async with connect(stage.superuser_url) as conn:
        assert await conn.fetchval(copied) > 0


async def test_a_run_whose_process_is_killed_is_recovered_without_anybody(
    stage: Stage, runtime: Runtime
) -> None:
    async with runtime.client() as http:
        run = await start(http, release="v2", reason="again")
        await reaches(http, run, "Paused")
        row = await stage.last()
        psutil.Process(int(row.holder.split(":")[1])).kill()
        await reaches(http, run, "Crashed")
    # The automation takes seconds; where its event is lost, the schedule comes within a minute.
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            if (row := await stage.last()).state == "failed":
                break
            await asyncio.sleep(0.1)
    assert "had touched nothing" in (row.failure or "")


async def every_seconds(http: httpx.AsyncClient, title: str, seconds: float) -> None:
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    (schedule,) = found["schedules"]
    changed = {"schedule": {"interval": seconds, "timezone": "Europe/London"}}
    where = f"/deployments/{found['id']}/schedules/{schedule['id']}"
    (await http.patch(where, json=changed)).raise_for_status()


async def look_at_it_soon(http: httpx.AsyncClient, title: str) -> None:
    """Prefect's scheduler looks at once at a deployment that was changed, and else each minute."""
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    changed = {"tags": found["tags"]}
    (await http.patch(f"/deployments/{found['id']}", json=changed)).raise_for_status()


async def scheduled_run(http: httpx.AsyncClient, title: str) -> str:
    """The first run that the server's schedule has started, once it is a good end."""
    found = (await http.get(f"/deployments/name/{title}")).raise_for_status().json()
    wanted = {
        "deployments": {"id": {"any_": [found["id"]]}},
        "flow_runs": {"state": {"name": {"any_": ["Refreshed"]}}},
    }
    runs: list[dict[str, Any]] = []

    async def is_there() -> bool:
        answer = await http.post("/flow_runs/filter", json=wanted)
        runs.extend(run for run in answer.raise_for_status().json() if run["auto_scheduled"])
        return bool(runs)

    await until(is_there, every_s=0.2)
    return runs[0]["id"]


async def start(http: httpx.AsyncClient, **parameters: str) -> str:
    """A run of deploy/prod."""
    found = (await http.get("/deployments/name/deploy/prod")).raise_for_status().json()
    where, given = f"/deployments/{found['id']}/create_flow_run", {"target": "prod", **parameters}
    answer = await http.post(where, json={"parameters": given})
    return answer.raise_for_status().json()["id"]


async def reaches(http: httpx.AsyncClient, run: str, state: str) -> None:
    """Wait until the run stands in that state."""

    async def reached() -> bool:
        found = (await http.get(f"/flow_runs/{run}")).raise_for_status().json()
        return found["state_name"] == state

    await until(reached, every_s=0.2)


def address_in(text: str) -> str:
    """The link in an alert."""
    found = re.search(r"http://127\.0\.0\.1:\d+/\S*flow-run/[0-9a-f-]+", text)
    assert found, text
    return found[0]
