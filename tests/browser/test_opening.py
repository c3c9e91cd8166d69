"""How a person comes into Prefect's UI: by a link, and without typing a secret."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from airlock import settings
from flows.runtime import Runtime, auth
from flows.runtime.ticket import PATH
from tests.browser.conftest import PATIENCE_MS, REFUSED, chromium
from tests.browser.window import CHROMIUM
from tests.stage import CHECKOUT

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here; `apt-get install chromium` brings it"
)


@asynccontextmanager
async def profile(folder: Path) -> AsyncIterator[Page]:
    """A window of a browser that keeps its history in the folder."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(folder, **chromium())
        context.set_default_timeout(PATIENCE_MS)
        yield await context.new_page()
        await context.close()


async def opens_both(page: Page, address: str, runtime: Runtime) -> None:
    """From that address to the new UI, and by a link of an alert to the older one."""
    refused: list[str] = []
    page.on("response", lambda each: refused.append(each.url) if each.status in REFUSED else None)
    await page.goto(address)
    await page.wait_for_url(f"{runtime.ui_url}/v2/**")
    await expect(page.get_by_role("link", name="Deployments")).to_be_visible()
    assert "#" not in page.url
    await page.goto(f"{runtime.ui_url}/deployments")
    await expect(page.get_by_role("button", name="Automations")).to_be_visible()
    assert page.url == f"{runtime.ui_url}/deployments", "and not its login"
    assert (refused, await page.locator("input[type=password]").count()) == ([], 0)


def history(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "Default" / "History")) as database:
        return [url for (url,) in database.execute("SELECT url FROM urls")]


async def test_a_link_opens_both_uis_and_what_the_history_keeps_of_it_opens_nothing(
    prefect_server: Runtime, tmp_path: Path
) -> None:
    link, secret = prefect_server.ui_link(), prefect_server.auth_string
    async with profile(tmp_path) as page:
        await opens_both(page, link, prefect_server)
    kept = history(tmp_path)
    assert [each for each in kept if secret in each or auth.encoded(secret) in each] == []
    assert link in kept, "a browser keeps each address, and so it must be worth nothing"
    async with profile(tmp_path / "another") as page:
        await page.goto(prefect_server.ui_url)
        await expect(page.locator("input[type=password]")).to_be_visible()
        await page.goto(link)
        await expect(page.get_by_text("This link was used, or has expired")).to_be_visible()
        assert page.url == f"{prefect_server.ui_url}{PATH}"
        assert await page.evaluate("localStorage.length") == 0


async def test_airlock_ui_opens_both_uis(
    prefect_server: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".airlock").mkdir()
    (tmp_path / ".airlock" / "prefect").symlink_to(prefect_server.state_dir)
    (tmp_path / settings.CONFIG_NAME).write_text("", encoding="utf-8")
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(tmp_path / settings.CONFIG_NAME))
    monkeypatch.setenv("BROWSER", "true %s")
    command = (sys.executable, "-m", "airlock", "ui")
    assert await (await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT)).wait() == 0
    page_of_ours = prefect_server.state_dir / "ui.html"
    async with profile(tmp_path / "profile") as page:
        await opens_both(page, page_of_ours.as_uri(), prefect_server)
