"""What is predicted of a statement, against what real servers did with it."""

from __future__ import annotations

import pytest

from airlock.effects import predict_one
from tests.effects.forms import disagreements, forms, read_table, world

TABLE = read_table()
VERSIONS = sorted({version for each in TABLE.values() for version in each})


def test_the_table_has_every_form_of_the_versions_that_it_was_made_on():
    assert VERSIONS, "docs/effects.md is not there. Run: make effects"
    for version in VERSIONS:
        missing = [form.text for form in forms(version) if version not in TABLE.get(form.text, {})]
        assert not missing, f"Run: make effects, for PostgreSQL {version} and {missing}"


@pytest.mark.parametrize("major", VERSIONS)
def test_predictions_from_the_text_alone_are_what_the_servers_did(major):
    wrong = [
        f"{form.text}: {each}"
        for form in forms(major)
        for each in disagreements(
            predict_one(form.statement, world(form, major)), TABLE[form.text][major]
        )
    ]
    assert not wrong, "\n".join(wrong)
