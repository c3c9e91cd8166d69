"""docs/attacks.md: what was tried, in rows, and by name what was not."""

from __future__ import annotations

from tests.attacks.document import Tried, document


def tried(test: str, *, by: str = "a peer", not_run: str = "") -> Tried:
    return Tried(test=test, by=by, tries="to listen", not_run=not_run)


def test_cases_of_one_attack_are_one_row_whatever_their_names_hold():
    page = document([tried("test_nothing_is_heard[::1]"), tried("test_nothing_is_heard[a]")])
    assert "| a peer | to listen | nothing is heard | 2 |" in page
    assert "2 attacks were tried, and none got in." in page


def test_what_could_not_be_tried_here_is_named_and_not_counted():
    page = document([tried("test_a"), tried("test_b[x]", not_run="PostgreSQL with TLS")])
    assert "1 attacks were tried, and none got in. 1 were not run" in page
    assert "| b | PostgreSQL with TLS |" in page
