"""docs/faults.md says what was played, and the same whatever came first."""

from __future__ import annotations

from tests.faults.document import Bitten, Played, page

PLAYED = (
    Played("cancelled", "forwards, apply_plan", "rolled_back"),
    Played("cancelled", "forwards, apply_plan", "succeeded"),
    Played("SIGTERM", "forwards, rehearse", "failed"),
    Played("cancelled", "forwards, apply_plan", "rolled_back"),
)
BITTEN = Bitten("the lock", "two at once", "a row of /tmp/a1/prod that 20261125T1416 wrote, again")


def test_faults_of_one_kind_at_one_place_are_one_row_with_their_ends():
    text = page(PLAYED, [BITTEN], version="18.4")
    assert "each of 4 faults" in text
    assert "| cancelled | forwards, apply_plan | 3 | deployed ×1, rolled back ×2 |" in text
    assert "| SIGTERM | forwards, rehearse | 1 | refused, untouched ×1 |" in text


def test_the_page_does_not_depend_on_the_order_or_the_machine():
    again = Bitten(
        "the lock", "two at once", "a row of /var/b2/prod that 20271201T0915 wrote, again"
    )
    assert page(PLAYED, [BITTEN], version="18.4") == page(PLAYED[::-1], [again], version="18.4")
    assert "| the lock | two at once | a row of … that … wrote, again |" in page(
        PLAYED, [BITTEN], version="18.4"
    )
