"""The page of the rules is what the rules and their cases say."""

from __future__ import annotations

from tests.unit.lint.page import COMMAND, PATH, page


def test_the_page_of_the_rules_is_up_to_date():
    assert PATH.read_text(encoding="utf-8") == page(), f"The rules changed. Run: {COMMAND}"
