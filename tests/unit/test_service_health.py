from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from airlock.health import Sign, Tally
from airlock.service import LogMark, log
from airlock.settings import ServiceSettings, Target

SIGNS: dict[str, Sign] = {sign[0]: sign for sign in get_args(Sign)}


def counted(signs: str) -> tuple[Tally, str | None]:
    """g, b, s, o: good, bad, silent, from another instance; three in a row are needed."""
    tally = Tally(consecutive=3)
    for letter in signs:
        if reason := tally.add(SIGNS[letter], f"answer {letter}"):
            return tally, reason
    return tally, None


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        ("ggg", None),
        ("bbggg", None),
        ("ssggg", None),
        ("gosg", None),
        ("bbb", "badly 3 times in a row"),
        ("bsbsbb", None),
        ("gb", "answered well 1 times and then badly"),
        ("gsgb", "answered well 2 times and then badly"),
        ("gsss", "1 times and then 3 times not at all"),
        ("ssss", None),
        ("oooo", None),
    ],
)
def test_the_service_is_unhealthy_as_soon_as_that_is_certain(
    signs: str, reason: str | None
) -> None:
    found = counted(signs)[1]
    assert (found is None) == (reason is None)
    assert reason is None or reason in str(found)


@pytest.mark.parametrize(
    ("signs", "verdict"),
    [
        ("", "inconclusive"),
        ("sss", "inconclusive"),
        ("gg", "inconclusive"),
        ("gso", "inconclusive"),
        ("sbs", "unhealthy"),
        ("ooo", "unhealthy"),
        ("sos", "unhealthy"),
    ],
)
def test_at_the_deadline_only_silence_is_inconclusive(signs: str, verdict: str) -> None:
    assert counted(signs)[0].at_deadline()[0] == verdict


@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ("2026-01-01 10:00:00 ERROR app: no such column", True),
        ("CRITICAL:root:gone", True),
        ('{"level": "error", "msg": "x"}', True),
        ("level=fatal msg=x", True),
        ("Traceback (most recent call last):", True),
        ("INFO: 0 errors", False),
        ("loaded error_pages.html", False),
        ('{"level": "info"}', False),
    ],
)
def test_error_lines_are_told_from_lines_about_errors(line: str, is_error: bool) -> None:
    assert bool(log.error_lines([line])) is is_error


def test_a_rotated_log_is_new_from_its_start(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    file.write_text("old\n" * 10)
    mark = log.mark(file)
    file.write_text("new\n")
    assert log.since(mark) == ["new"]
    assert log.since(LogMark(path=tmp_path / "none")) == []


def test_secrets_and_query_strings_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "abcdef123")
    target = Target(
        name="t",
        root=tmp_path,
        state_dir=tmp_path,
        migrations_dir=tmp_path,
        database_url_env="NONE_URL",
        service=ServiceSettings(env=("API_KEY",)),
    )
    text = "key abcdef123, postgresql://u:pw@h/d?sslkey=1, GET /deals?token=1 http://h/x?y=2"
    assert log.mask(target, text) == (
        "key ***, postgresql://***@h/d?*** GET /deals?*** http://h/x?***"
    )
