"""A browser, and the whole installation that it looks at: Prefect, production, its service."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Response, async_playwright, expect

from airlock import server
from airlock.postgres import quote_ident
from flows.runtime import Runtime, command, prefect_runtime
from tests.acceptance.test_refresh import mask_tables
from tests.browser.window import CHROMIUM, Window
from tests.patience import PATIENCE_S
from tests.people import connect
from tests.stage import CHECKOUT, Stage, receiving, standing

# Production asks for a reason and a person's word; staging is there to be chosen and refreshed.
POLICY = """
[targets.prod.approval]
policy = "always"
[targets.staging]
database_url_env = "STAGING_DATABASE_URL"
[targets.staging.refresh]
source = "prod"
admin_url_env = "STAGING_ADMIN_URL"
key_env = "STAGING_MASK_KEY"
"""
# The graph of a run is drawn sixty times a second, each time by the processor; ten will do.
SLOW_DISPLAY = """
    window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 100);
    window.cancelAnimationFrame = number => clearTimeout(number);
"""
PATIENCE_MS = PATIENCE_S * 1000
# As of a change that lacks its CSRF token.
REFUSED = (401, 403)
SCREENSHOTS = CHECKOUT / ".airlock" / "screenshots"

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> dict[str, Any]:
    """How Debian's Chromium is started: Playwright's own would be downloaded."""
    # The new UI asks its makers' server for the settings of the analytics that we turn off.
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # A machine of tests has no GPU, and Chromium's imitation of one costs more than it saves.
    arguments.append("--disable-gpu-compositing")
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which refuses to run as root
    return {"executable_path": CHROMIUM, "args": arguments}


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(**chromium())
        yield found
        await found.close()


@pytest.fixture(scope="module")
async def stage(
    pg: server.Server,
    base_009: str,
    service_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stage]:
    """Production at 009, release v1 serving. The worker inherits this environment."""
    with pytest.MonkeyPatch.context() as patch:
        async with (
            receiving() as webhook,
            standing(
                tmp_path_factory.mktemp("browser") / "project",
                pg=pg,
                base=base_009,
                repository=service_repository,
                webhook=webhook,
                patch=patch,
            ) as made,
        ):
            made.change("prod]\n", "prod]\nrequire_reason = true\n")
            made.add(POLICY + mask_tables())
            async with staging(pg) as name:
                patch.setenv("STAGING_DATABASE_URL", pg.url(name, "owner"))
                patch.setenv("STAGING_ADMIN_URL", pg.url())
                patch.setenv("STAGING_MASK_KEY", secrets.token_hex(16))
                yield made


@asynccontextmanager
async def staging(pg: server.Server) -> AsyncIterator[str]:
    """An empty database, to be replaced by a masked copy."""
    name = f"browser_{os.getpid()}"
    async with connect(pg.url()) as superuser:
        await superuser.execute(f"CREATE DATABASE {quote_ident(name)} OWNER owner")
    try:
        yield name
    finally:
        async with connect(pg.url()) as superuser:
            made = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
            for row in await superuser.fetch(made, name):
                await superuser.execute(f"DROP DATABASE {quote_ident(row['datname'])} WITH (FORCE)")


@pytest.fixture(scope="module")
async def runtime(stage: Stage) -> AsyncIterator[Runtime]:
    """What `make serve` brings up: server, worker and the deployments of prefect.yaml."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "POLL_S", 0.5)
        async with prefect_runtime(stage.root / ".airlock" / "prefect", port=0) as started:
            yield started


@pytest.fixture(scope="module")
async def person(browser: Browser, runtime: Runtime) -> AsyncIterator[BrowserContext]:
    """Somebody at a laptop, who has opened the link; the browser keeps the UI once it is loaded."""
    context = await browser.new_context(
        base_url=runtime.ui_url, viewport={"width": 1280, "height": 860}
    )
    await context.add_init_script(SLOW_DISPLAY)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.goto(runtime.ui_link())
    await page.wait_for_url(f"{runtime.ui_url}/v2/**")
    await page.close()
    yield context
    await context.close()


@pytest.fixture
async def window(person: BrowserContext) -> AsyncIterator[Window]:
    """A window that reaches nothing but this machine, and is refused nothing there."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = await person.new_page()
    refused: list[str] = []

    def remember(answer: Response) -> None:
        if answer.status in REFUSED:
            refused.append(f"{answer.request.method} {answer.url}: {answer.status}")

    page.on("response", remember)
    yield Window(page=page, screenshots=SCREENSHOTS)
    await page.close()
    assert refused == []
