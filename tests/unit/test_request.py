"""What may be asked for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airlock.request import DeployRequest


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"target": ""},
        {"target": "prod", "up_to": 0},
        {"target": "prod", "release": ""},
        {"target": "prod", "reason": "x" * 501},
        {"target": "prod", "requester": "x" * 201},
        {"target": "prod", "database_url": "postgresql://u:p@host/db"},
    ],
)
def test_a_request_outside_its_bounds_is_not_one(given):
    with pytest.raises(ValidationError):
        DeployRequest(**given)


def test_a_request_comes_back_from_the_ledger_as_it_was():
    asked = DeployRequest(target="prod", up_to=11, release="v2", reason="ü", dry_run=True)
    assert DeployRequest.model_validate_json(asked.model_dump_json()) == asked
