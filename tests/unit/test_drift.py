"""What people read about a drift."""

from __future__ import annotations

import pytest

from airlock import drift
from airlock.catalogue import Catalogue, diff
from airlock.drift import DriftReport
from tests.unit.test_markdown import RENDERER

ATTACK = "<b>``\n```\n# a"


@pytest.mark.parametrize(
    ("found", "failure"),
    [(diff(Catalogue(objects={}), Catalogue(objects={f"table {ATTACK}": {}})), ""), (None, ATTACK)],
    ids=["a name", "a failure"],
)
def test_whatever_a_table_is_called_it_is_no_markup_of_the_artifact(found, failure):
    report = DriftReport(target="prod", deploy=7, found=found, failure=failure)
    tokens = RENDERER.parse(drift.markdown(report))
    assert [token.type for token in tokens].count("heading_open") == 1
    (block,) = (token for token in tokens if token.type == "fence")
    assert "# a" in block.content
