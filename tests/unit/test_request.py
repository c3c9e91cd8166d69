"""What may be asked for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airlock.errors import Refused
from airlock.request import DeployRequest, checked


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


@pytest.mark.parametrize(
    "release",
    [
        *("\0", "v1\0", "-x", "--upload-pack=sh", "a b", "v1\n"),
        *("\x1b[2J", "v\u202e1", "v\u2028", "v\x9b1"),
    ],
)
def test_a_release_that_no_commit_is_called_is_refused_in_our_words(release):
    with pytest.raises(Refused, match=r"^release: .* is not the name of a commit, .*started\.$"):
        checked(DeployRequest, target="prod", release=release)


@pytest.mark.parametrize("release", ["v2", "feature/größe", "HEAD~1^2", "main@{1}", "0f3c9a"])
def test_a_release_is_any_name_that_git_knows(release):
    assert checked(DeployRequest, target="prod", release=release).release == release


def test_a_request_comes_back_from_the_ledger_as_it_was():
    asked = DeployRequest(target="prod", up_to=11, release="v2", reason="ü", dry_run=True)
    assert DeployRequest.model_validate_json(asked.model_dump_json()) == asked
