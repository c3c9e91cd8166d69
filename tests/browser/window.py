"""Prefect's UI as a person uses it: what is clicked, filled in and read.

`/` is the new UI, V2; the links that Prefect prints and our alerts carry open the older one, V1.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Locator, Page, expect

CHROMIUM = shutil.which("chromium")
BUSY = 503
DECISION_PX = 1420
SHORT_ID = re.compile(r"^[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One browser window, and the folder for its screenshots."""

    page: Page
    screenshots: Path

    @property
    def main(self) -> Locator:
        return self.page.get_by_role("main")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    async def keep(self, name: str, *, whole: bool = False) -> None:
        """A screenshot, for whoever wants to see what the test saw."""
        await self.page.screenshot(path=self.screenshots / f"{name}.png", full_page=whole)

    async def keep_decision(self, name: str) -> None:
        """The same of a waiting run's form, in a window so high that its question shows as well."""
        size = self.page.viewport_size
        assert size is not None
        await self.page.set_viewport_size({**size, "height": DECISION_PX})
        await self.dialog.get_by_role("textbox", name="Reason").scroll_into_view_if_needed()
        await self.keep(name)
        await self.page.set_viewport_size(size)

    async def open_deployment(self, flow: str, name: str) -> None:
        """From the front page, through the list."""
        await self.page.goto("/")
        await self.page.get_by_role("link", name="Deployments").click()
        link = self.page.get_by_role("link", name=flow, exact=True)
        row = self.page.get_by_role("row").filter(has=link)
        await row.get_by_role("link", name=name, exact=True).click()
        await expect(self.page.get_by_role("button", name="Run", exact=True)).to_be_visible()

    async def open_form(self) -> None:
        """That of a custom run."""
        await self.page.get_by_role("button", name="Run", exact=True).click()
        await self.page.get_by_role("menuitem", name="Custom run").click()

    async def choices(self, label: str) -> list[str]:
        """What a drop-down offers; it is closed again."""
        await self.page.get_by_role("button", name=f"Select {label}").click()
        options = self.page.get_by_role("option")
        await expect(options.first).to_be_visible()
        offered = await options.all_inner_texts()
        await self.page.keyboard.press("Escape")
        return offered

    async def fill(self, **fields: str) -> None:
        """Fields by the beginning of their label."""
        for label, value in fields.items():
            await self.page.get_by_role("textbox", name=label.replace("_", " ")).fill(value)

    async def submit(self) -> None:
        """Start the run, and go where it can be watched."""
        await self._send(self.page.get_by_role("button", name="Submit"), "/create_flow_run")
        await self.page.get_by_role("link", name="View run").click()

    async def reaches(self, state: str) -> None:
        """Wait until the run that is open stands in that state."""
        await expect(self.page.get_by_text(state, exact=True).first).to_be_visible()

    async def is_drawn(self) -> None:
        """Wait until no part of the page is a grey placeholder."""
        await expect(self.page.locator(".animate-pulse")).to_have_count(0)

    @property
    def decision(self) -> Locator:
        """The drop-down of a waiting run's form."""
        return self.dialog.get_by_role("button", name="Select Decision")

    async def open_decision(self) -> None:
        """The form of the waiting run that is open."""
        await self.page.get_by_role("button", name="Open menu").click()
        await self.page.get_by_role("menuitem", name="Resume").click()
        await expect(self.decision).to_be_visible()

    async def approve(self, name: str, reason: str) -> None:
        """Fill in that form, and send it."""
        await self.decision.click()
        await self.page.get_by_role("option", name="approve").click()
        await self.fill(Your_name=name, Reason=reason)
        await self._send(self.dialog.get_by_role("button", name="Resume"), "/resume")

    async def _send(self, button: Locator, path: str) -> None:
        """Click; and again where the server was busy: its SQLite file was locked, nothing done."""
        answer = None
        while answer is None or answer.status == BUSY:
            async with self.page.expect_response(
                lambda each: (
                    each.url.endswith((path, "/schemas/validate"))
                    and (each.url.endswith(path) or each.status == BUSY)
                )
            ) as sent:
                await button.click()
            answer = await sent.value
        assert answer.ok, await answer.text()

    async def switch(self, *, on: bool) -> None:
        """Switch the schedule of the deployment that is open; again where the server was busy."""
        switch = self.page.get_by_role("complementary").get_by_role("switch")
        answer = None
        while answer is None or answer.status == BUSY:
            async with self.page.expect_response(
                lambda each: each.request.method == "PATCH" and "/schedules/" in each.url
            ) as sent:
                await switch.click()
            answer = await sent.value
        assert answer.ok, await answer.text()
        await expect(switch).to_be_checked(checked=on)

    async def open_artifact(self, key: str) -> None:
        """The newest of that key, from the page of the run that wrote it."""
        await self.page.get_by_role("tab", name="Artifacts").click()
        await self.page.get_by_role("link", name=key).click()
        await self.main.get_by_role("link", name=SHORT_ID).first.click()
        await expect(self.main.get_by_role("heading", level=1).first).to_be_visible()
