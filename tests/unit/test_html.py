"""The report as one file: everything in it, nothing from outside, and nothing that runs."""

from __future__ import annotations

import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airlock import html, record, report
from airlock.catalogue import Catalogue
from airlock.report import DeployReport
from tests.unit.test_report import BEFORE, PLAN, REHEARSAL, ROW, STEP, VERIFIED, deploy, make

ATTACK = "</code></pre><script>alert('``` |')</script>"
SVG_ATTACK = "<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.unclosed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"meta", "img", "br", "hr"}:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def attacked() -> DeployReport:
    """Hostile words wherever somebody could put them."""
    step = replace(STEP, name=ATTACK, file=f"{ATTACK}.sql", purpose=ATTACK)
    tried = replace(
        REHEARSAL.migrations[0],
        label=ATTACK,
        statements=(replace(REHEARSAL.migrations[0].statements[0], statement=ATTACK),),
    )
    row = deploy(
        state="rolled_back",
        reason=ATTACK,
        requester=SVG_ATTACK,
        failed_step=ATTACK,
        failure=ATTACK,
        plan=record.dump(replace(PLAN, head=ATTACK, migrations=(step,))),
        rehearsal=record.dump(
            replace(REHEARSAL, migrations=(tried,), verdict="lossy", losses=(ATTACK,))
        ),
    )
    objects = {**BEFORE.objects, f"table public.{ATTACK}": {"comment": SVG_ATTACK}}
    return make(
        row,
        (ATTACK, "intent"),
        (ATTACK, "done"),
        migrations=(replace(ROW, name=ATTACK),),
        schema_expected=Catalogue(objects=objects),
    )


@pytest.mark.parametrize("found", [make(deploy(), *VERIFIED), attacked()], ids=["good", "attacked"])
def test_a_page_is_whole_and_loads_nothing(found):
    page = Page(html.page(found))
    assert page.unclosed == []
    assert not {"script", "link", "iframe", "object", "svg", "a"} & {*page.tags}
    names = {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name in names)
    addresses = [value for name, value in page.attributes if name in ("src", "href")]
    assert [each[:26] for each in addresses] == ["data:image/svg+xml;base64,"]
    policy = dict(page.attributes)["http-equiv"]
    assert policy == "Content-Security-Policy"
    assert any(value.startswith("default-src 'none';") for _, value in page.attributes)


def test_hostile_words_are_shown_as_they_are():
    page = Page(html.page(attacked()))
    text = "".join(page.texts)
    assert text.count("<script>alert('``` |')</script>") >= 8
    assert SVG_ATTACK in text


def test_hostile_words_are_no_markup_in_the_markdown_either():
    text = report.markdown(attacked(), pictures=True)
    outside_code = text.split("</details>")[-1]
    assert "\\<script>" in outside_code
    for line in text.splitlines():
        if line.startswith(("# ", "- [", "**", "| Started by")):
            assert "<script" not in line.replace("\\<script", "")


def test_a_page_says_what_the_markdown_says():
    found = make(deploy(run_url="http://ui/runs/1"), *VERIFIED)
    page = Page(html.page(found))
    text = "".join(page.texts)
    for each in (
        "DEPLOYED – prod stands at 011",
        "Ada – halts",
        "public.deals AccessExclusiveLock rewritten",
        "UPDATE a SET b = 1 | 2",
        "☑ Tested on dev database",
        "☐ Frontend still functions – not checked",
    ):
        assert each in text, each
    assert ("class", "plus") in page.attributes
    assert ("href", "http://ui/runs/1") in page.attributes
    assert page.tags.count("details") == 2


def test_ticked_crossed_and_unchecked_lines_look_different():
    page = html.page(make(deploy(state="rolled_back"), *VERIFIED))
    for kind, line in (
        ("done", "☑ Tested on dev database"),
        ("failed", "✗ Indexes created"),
        ("open", "☐ Frontend still functions"),
    ):
        assert f'<li class="{kind}">{line}' in page


def test_only_its_owner_may_read_what_is_written(tmp_path: Path):
    path = tmp_path / "reports" / "7.html"
    html.write(path, "first, and longer")
    path.chmod(0o644)
    html.write(path, "second")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text(encoding="utf-8") == "second"


def test_markup_that_got_into_the_markdown_is_text_in_the_page():
    assert html._renderer()("<b>a</b>") == "<p>&lt;b&gt;a&lt;/b&gt;</p>\n"
